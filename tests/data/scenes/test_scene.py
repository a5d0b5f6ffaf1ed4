"""Scenes are reproducible and varied, and their boxes are where objects are."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from conditional_detr.data.scenes import SCENES, draw_scene, write_scenes
from conditional_detr.data.scenes.kinds import KINDS
from conditional_detr.data.scenes.textures import PATTERNS
from conditional_detr.errors import SettingsError


@pytest.fixture(scope="module")
def drawn():
    return [draw_scene(0, index, 96) for index in range(150)]


def test_a_scene_depends_on_seed_index_split_and_size_only():
    def pixels(*arguments):
        drawing = draw_scene(*arguments)
        return np.asarray(drawing.image).tobytes(), drawing.boxes, drawing.category_ids

    first = pixels(1, 5, 64)
    draw_scene(2, 9, 64)
    assert pixels(1, 5, 64) == first
    others = [pixels(2, 5, 64), pixels(1, 6, 64), pixels(1, 5, 64, "val"), pixels(1, 5, 65)]
    assert all(other != first for other in others)


def test_boxes_are_inside_and_named(drawn):
    for image, boxes, category_ids in drawn:
        assert image.mode == "RGB"
        assert max(image.size) == 96
        assert len(boxes) == len(category_ids) >= 1
        for x, y, width, height in boxes:
            assert 0 <= x < x + width <= image.width
            assert 0 <= y < y + height <= image.height
            assert width >= 2
            assert height >= 2


def test_variety(drawn):
    """All kinds occur; sizes, aspect ratios and counts cover their ranges; images differ in shape, light and color."""
    kinds = Counter(each for drawing in drawn for each in drawing.category_ids)
    assert set(kinds) == set(SCENES.ids)
    counts = [len(drawing.boxes) for drawing in drawn]
    assert min(counts) == 1
    assert max(counts) >= 18
    assert np.std(counts) > 4
    sizes, aspects = [], []
    for image, boxes, _ in drawn:
        sizes += [max(box[2:]) / min(image.size) for box in boxes]
        aspects += [box[2] / box[3] for box in boxes]
    low, middle, high = np.percentile(sizes, [2, 50, 99])
    assert low < 0.07
    assert 0.1 < middle < 0.25
    assert 0.6 < high < 0.75
    assert np.percentile(aspects, 2) < 0.35
    assert np.percentile(aspects, 98) > 2.8
    assert len({drawing.image.size for drawing in drawn}) >= 5
    means = [np.asarray(drawing.image).mean() for drawing in drawn]
    assert np.percentile(means, 5) < 80
    assert np.percentile(means, 95) > 145
    gray = sum(bool((np.ptp(np.asarray(drawing.image), axis=2) == 0).all()) for drawing in drawn)
    assert 2 < gray < 50


def test_objects_can_be_seen(drawn):
    """The border of nearly every box of some size holds pixels that differ from those right outside."""
    seen = total = 0
    for image, boxes, _ in drawn:
        pixels = np.asarray(image).astype(float)
        for x, y, width, height in boxes:
            if min(width, height) < 8 or min(x, y) < 3 or x + width > image.width - 3 or y + height > image.height - 3:
                continue
            inside = pixels[y : y + height, x : x + width].reshape(-1, 3)
            around = np.concatenate([pixels[y - 3, x : x + width], pixels[y + height + 2, x : x + width]])
            total += 1
            seen += np.abs(np.median(around, axis=0) - np.percentile(inside, [10, 50, 90], axis=0)).max() > 15
    assert total > 200
    assert seen / total > 0.95


def test_kinds_are_many_and_named_in_plain_words():
    assert len(KINDS) >= 20
    assert len(set(SCENES.names)) == len(KINDS)
    assert "car from above" in SCENES.names


@pytest.mark.parametrize("pattern", sorted(set(PATTERNS), key=lambda each: each.__name__))
def test_patterns_fill_any_size(pattern):
    for height, width in ((1, 1), (2, 50), (37, 8), (64, 96)):
        for seed in range(5):
            values = pattern(np.random.default_rng(seed), height, width)
            assert values.shape == (height, width)
            assert values.dtype == np.float32
            assert -0.3 < values.min() <= values.max() < 1.3
    assert np.ptp(values) > 0.1


def test_written_scenes_are_those_that_are_drawn(tmp_path):
    objects = write_scenes(tmp_path / "new", {"train": 3, "val": 1}, 7, size=64)
    expected = [draw_scene(7, index, 64) for index in range(3)]
    assert objects == {
        "train": sum(len(each.boxes) for each in expected),
        "val": len(draw_scene(7, 0, 64, "val").boxes),
    }
    for number, each in enumerate(expected, 1):
        with Image.open(tmp_path / "new" / "train2017" / f"{number:06d}.jpg") as image:
            difference = np.asarray(image).astype(float) - np.asarray(each.image)
        assert np.abs(difference).mean() < 10  # JPEG


@pytest.mark.parametrize("size", [-1, 0, 31, 2049])
def test_a_size_out_of_range_is_refused(size, tmp_path):
    with pytest.raises(SettingsError, match="32 to 2048 pixels"):
        write_scenes(tmp_path / "new", {"train": 1}, 0, size=size)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingsError, match=f"got {size}"):
        draw_scene(0, 0, size)


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="must not be negative, got -1 and 0"):
        write_scenes(tmp_path / "new", {"train": 1}, -1)
    assert not list(tmp_path.iterdir())
