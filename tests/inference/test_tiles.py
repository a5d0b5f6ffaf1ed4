"""Tiles find small objects of large images, each once, and change nothing for images that are not larger than a tile."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from conditional_detr import Detections, Detector, ImageError, SettingsError, Tiling, predict_tiles
from conditional_detr.inference.detector import Found
from conditional_detr.inference.tiles import merged, stream_tiles


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained("starter:tiny", device="cpu")


def scene(boxes: list[tuple[int, int, int, int]], size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, (90, 110, 100))
    pen = ImageDraw.Draw(image)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=((230, 40, 30), (40, 40, 230), (240, 230, 60))[i % 3])
    return image


class Ideal(Detector):
    """Finds every object that it sees, or the part of it, if the object is not too small in the image."""

    def __init__(self) -> None:
        pass

    def stream(self, images, threshold=0.5, *, batch_size=1):
        for image in images:
            gray = np.asarray(image)[..., 0]
            boxes = []
            for value in np.unique(gray[gray > 0]):
                y, x = np.nonzero(gray == value)
                boxes.append([float(x.min()), float(y.min()), x.max() + 1.0, y.max() + 1.0])
            found = torch.tensor(boxes).reshape(-1, 4)
            found = found[(found[:, 2:] - found[:, :2]).amax(1) > max(image.size) / 20]
            scores = torch.linspace(0.6, 0.9, len(found))
            labels = torch.ones(len(found), dtype=torch.int64)
            yield Found(image, Detections(found, scores, labels, ["x"] * len(found)), 0.9)


@pytest.mark.parametrize("tiling", [Tiling(128), Tiling(128, 0.0), Tiling(100, 0.5), Tiling(300, 0.3)])
def test_every_object_is_found_once_and_whole(tiling):
    """Some lie across borders of tiles, in corners of four tiles, or in what tiles share; two are larger than a tile."""
    boxes = [(x, y, x + 30, y + 24) for y in range(10, 560, 70) for x in range(4, 500, 62)]
    boxes += [(520, 10, 600, 590), (130, 566, 500, 598)]
    pixels = np.zeros((600, 610, 3), np.uint8)
    for value, (x0, y0, x1, y1) in enumerate(boxes, start=100):
        pixels[y0:y1, x0:x1] = value
    image = Image.fromarray(pixels)
    assert len(next(Ideal().stream([image])).detections) == 2
    if tiling.overlap == 0.0:  # objects across a border are nowhere whole
        boxes = [
            box
            for box in boxes
            if all(_inside_one_tile(*box[i::2], length, tiling) for i, length in ((0, 610), (1, 600)))
        ]
        found = {tuple(round(v) for v in each.box) for each in predict_tiles(Ideal(), image, tiling)}
        assert set(boxes) <= found
        return
    found = sorted(tuple(round(v) for v in each.box) for each in predict_tiles(Ideal(), image, tiling))
    assert found == sorted(boxes)


def _inside_one_tile(low: int, high: int, length: int, tiling: Tiling) -> bool:
    starts = {tile[0] for tile in tiling.tiles(length, 1)}
    return high - low > 128 or any(start <= low and high <= start + tiling.side for start in starts)


def test_small_objects_are_found(detector):
    boxes = torch.tensor([(x, y, x + 32, y + 30) for y in (12, 70, 150, 260, 340) for x in (8, 66, 130, 200, 290, 345)])
    image = scene(boxes.tolist(), (384, 384))

    def found(detections: Detections) -> int:
        return sum(bool(((detections.boxes - box).abs().amax(1) < 6).any()) for box in boxes)

    tiled = predict_tiles(detector, image, Tiling(128, 0.35), batch_size=4)
    assert found(detector.predict(image)) < 5  # the whole image is scaled down too far
    assert found(tiled) > 25
    assert tiled.scores.tolist() == sorted(tiled.scores.tolist(), reverse=True)


def test_an_object_larger_than_a_tile_is_found_whole(detector):
    image = scene([(40, 50, 150, 140)], (200, 200))
    found = predict_tiles(detector, image, Tiling(80, 0.1))
    assert len(found) == 1
    assert (found.boxes[0] - torch.tensor([40, 50, 150, 140])).abs().max() < 10


@pytest.mark.parametrize("side", [120, 500])
def test_a_tile_as_large_as_the_image_changes_nothing(side, detector):
    image = scene([(10, 20, 50, 60)], (120, 90))
    plain, tiled = detector.predict(image, 0.0), predict_tiles(detector, image, Tiling(side), 0.0)
    assert torch.equal(plain.boxes, tiled.boxes)
    assert torch.equal(plain.scores, tiled.scores)
    assert torch.equal(plain.labels, tiled.labels)


@pytest.mark.parametrize("size", [(100, 100), (1000, 333), (101, 4000), (1, 300), (97, 96)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.9])
def test_tiles_cover_the_image_and_share_enough(size, overlap):
    width, height = size
    tiles = Tiling(96, float(overlap)).tiles(width, height)
    seen = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in tiles:
        seen[y0:y1, x0:x1] = True
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
    assert seen.all()
    assert len({(x1 - x0, y1 - y0) for x0, y0, x1, y1 in tiles}) == 1
    starts = sorted({tile[0] for tile in tiles})
    assert all(b - a <= 96 - int(96 * overlap) for a, b in pairwise(starts))
    assert len(set(tiles)) == len(tiles)


def part(*objects: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = (list(each) for each in zip(*objects, strict=True))
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), [str(each) for each in labels])


def test_which_boxes_are_merged():
    whole = [0.0, 0.0, 100.0, 40.0]
    half = [65.0, 0.0, 100.0, 40.0]
    near = [2.0, 1.0, 100.0, 41.0]

    def kept(first: Detections, second: Detections, *cut: bool) -> list[float]:
        return [round(each.score, 2) for each in merged([first, second], torch.tensor(cut))]

    assert kept(part((whole, 0.8, 1)), part((near, 0.9, 1)), False, False) == [0.9]
    assert kept(part((whole, 0.8, 1)), part((near, 0.9, 2)), False, False) == [0.9, 0.8]  # another category
    assert kept(part((whole, 0.8, 1)), part((half, 0.9, 1)), False, False) == [0.9, 0.8]  # another object
    assert kept(part((whole, 0.8, 1)), part((half, 0.9, 1)), False, True) == [0.8]  # half of the same
    assert kept(part((whole, 0.2, 1)), part((half, 0.9, 1)), False, True) == [0.9, 0.2]  # hardly found as a whole
    assert kept(part((whole, 0.8, 1), (near, 0.7, 1)), part((half, 0.9, 1)), False, False, True) == [0.8, 0.7]


def test_wrong_numbers_are_one_sentence(detector):
    for side in (0, -5):
        with pytest.raises(SettingsError, match=r"side of tiles is .*; give a whole number of pixels from 1"):
            Tiling(side)
    for overlap in (-0.1, 1.0, float("nan")):
        with pytest.raises(SettingsError, match=r"overlap of tiles is .*; give a part in 0\.\.0\.9"):
            Tiling(96, overlap)
    with pytest.raises(
        ImageError, match=r"1000 x 1000 pixels has .* tiles of 2 pixels, more than 10000; give larger tiles"
    ):
        predict_tiles(detector, Image.new("RGB", (1000, 1000)), Tiling(2))
    with pytest.raises(SettingsError, match="threshold"):
        predict_tiles(detector, Image.new("RGB", (100, 100)), Tiling(50), 2.0)


def test_many_images_with_one_that_is_none(detector, tmp_path):
    scene([(10, 20, 50, 60)], (150, 90)).save(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(b"no image")
    found = list(stream_tiles(detector, [tmp_path / "x.png", tmp_path / "y.png", tmp_path / "x.png"], Tiling(96)))
    assert [isinstance(each, ImageError) for each in found] == [False, True, False]
    assert len(found[0].detections) == len(found[2].detections) == 1
    assert found[0].best_score == pytest.approx(float(found[0].detections.scores[0]))
