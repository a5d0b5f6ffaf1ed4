"""The published augmentation equals the recorded numbers of the official functions, and is valid for any image.

Boxes follow their objects through every function: an object is a rectangle of its own color, whose pixels are found again.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from conditional_detr.config import DataSettings, load_settings
from conditional_detr.data.batching import pad, prepare
from conditional_detr.data.images import to_pixels
from conditional_detr.data.transforms import (
    FILL,
    LabeledImage,
    augment,
    chance,
    change_colors,
    crop,
    crop_around_object,
    flip,
    flip_vertically,
    jitter_scale,
    mosaic,
    resize_shorter,
    resized_size,
    turn,
)
from conditional_detr.errors import ImageError, SettingsError
from conditional_detr.input_size import MAX_PIXELS, InputSize
from tests.conftest import SHARED, needs_shared


@pytest.fixture(scope="module")
def units():
    return dict(np.load(SHARED / "reference" / "unit_functions.npz"))


@pytest.fixture
def sample(units) -> LabeledImage:
    image = Image.fromarray(units["transform_input__out_image"])
    boxes = torch.from_numpy(units["transform_input__out_boxes"])
    return LabeledImage(image, boxes, torch.arange(len(boxes)))


def check(result: LabeledImage, units, name: str) -> None:
    np.testing.assert_array_equal(np.asarray(result.image), units[f"transform_{name}__out_image"])
    np.testing.assert_allclose(result.boxes.numpy(), units[f"transform_{name}__out_boxes"], atol=1e-4)


reference = needs_shared("reference/unit_functions.npz")


@reference
def test_flip(sample, units):
    check(flip(sample), units, "hflip")


@reference
def test_crop(sample, units):
    top, left, height, width = units["transform_crop__in_region"].tolist()
    check(crop(sample, top, left, height, width), units, "crop")


@reference
@pytest.mark.parametrize(
    ("name", "short", "longest"), [("80_133", 80, 133), ("33_none", 33, None), ("90_100", 90, 100)]
)
def test_resize_shorter(sample, units, name, short, longest):
    check(resize_shorter(sample, short, longest), units, f"resize_{name}")


@reference
def test_evaluation_transform(sample, units):
    result = resize_shorter(sample, 64, 107)
    np.testing.assert_allclose(to_pixels(result.image).numpy(), units["transform_val_64_107__out_image"], atol=1e-5)
    np.testing.assert_allclose(result.relative_boxes().numpy(), units["transform_val_64_107__out_boxes"], atol=1e-6)


@reference
def test_sizes():
    rows = json.loads((SHARED / "reference" / "unit_functions.json").read_text())["resize_sizes"]
    for height, width, short, longest, new_height, new_width in rows:
        assert resized_size(height, width, short, longest) == (new_height, new_width)


@given(height=st.integers(1, 9000), width=st.integers(1, 9000), short=st.integers(1, 800))
def test_no_side_becomes_zero(height, width, short):
    new_height, new_width = resized_size(height, width, short, 1333)
    assert min(new_height, new_width) >= 1
    assert min(new_height, new_width) <= max(short, 1)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700), seed=st.integers(0, 1000))
def test_augmented_boxes_are_inside_and_have_area(height, width, seed):
    boxes = torch.tensor([[0.0, 0.0, width, height], [0.0, 0.0, width / 2, height / 2]])
    sample = LabeledImage(Image.new("RGB", (width, height)), boxes, torch.tensor([1, 2]))
    result = augment(sample, DataSettings(short_sides=(64, 96), max_size=160), np.random.default_rng(seed))
    center, size = result.relative_boxes()[:, :2], result.relative_boxes()[:, 2:]
    assert (center - size / 2 > -1e-5).all()
    assert (center + size / 2 < 1 + 1e-5).all()
    assert (size > 0).all()
    assert len(result.labels) == len(result.boxes)


def test_augmentation_covers_what_is_published():
    """Every training size occurs, half of the images are flipped, and crops change the aspect ratio."""
    defaults = DataSettings()
    image = Image.new("RGB", (640, 480))
    image.paste((255, 255, 255), (0, 0, 320, 480))  # the left half is white
    sample = LabeledImage(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    only_resized = defaults.model_copy(update={"crop": 0.0})
    results = [augment(sample, only_resized, np.random.default_rng(i)).image for i in range(150)]
    assert {min(result.size) for result in results} == set(defaults.short_sides)
    flipped = sum(result.getpixel((2, 2)) == (0, 0, 0) for result in results)
    assert 50 < flipped < 100
    ratios = [augment(sample, defaults, np.random.default_rng(i)).image for i in range(60)]
    assert len({round(result.width / result.height, 2) for result in ratios}) > 10


# --- boxes follow their objects ---

# The corners of the color cube are far from each other, and from gray.
COLORS = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)])
GRAY = (128, 128, 128)


def colored(width: int, height: int, boxes: list[tuple[int, int, int, int]], first: int = 0) -> LabeledImage:
    """A gray image with rectangles in whole pixels. Labels are indices of their colors, from ``first`` on."""
    image = Image.new("RGB", (width, height), GRAY)
    for i, (x0, y0, x1, y1) in enumerate(boxes, start=first):
        image.paste(tuple(COLORS[i].tolist()), (x0, y0, x1, y1))
    return LabeledImage(image, torch.tensor(boxes).reshape(-1, 4).float(), torch.arange(first, first + len(boxes)))


def nearest_labels(image: Image.Image) -> np.ndarray:
    """Return the label of the color that is nearest to each pixel, ``len(COLORS)`` for gray."""
    pixels = np.asarray(image, dtype=int)
    distances = [np.abs(pixels - color).sum(-1) for color in (*COLORS, GRAY)]
    return np.argmin(distances, axis=0)


def check_boxes(sample: LabeledImage, tolerance: float = 1.0) -> None:
    """Every box is where the pixels of its color are."""
    width, height = sample.image.size
    assert sample.boxes.dtype == torch.float32
    assert sample.labels.dtype == torch.int64
    assert sample.boxes.shape == (len(sample.labels), 4)
    assert (sample.boxes >= -1e-3).all()
    assert (sample.boxes <= torch.tensor([width, height] * 2) + 1e-3).all()
    assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
    nearest = nearest_labels(sample.image)
    for box, label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
        rows, columns = np.nonzero(nearest == label)
        if min(box[2] - box[0], box[3] - box[1]) < 2:  # such a thin object fades into the background
            continue
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found, box, atol=tolerance, err_msg=f"object {label}")


def no_objects(width: int, height: int) -> LabeledImage:
    return colored(width, height, [])


# Odd sides, objects at each border and in a corner, and one in the middle.
BORDERS = [(0, 0, 20, 13), (60, 0, 75, 10), (84, 40, 101, 60), (5, 50, 12, 77), (40, 30, 55, 44)]


@pytest.fixture
def objects() -> LabeledImage:
    return colored(101, 77, BORDERS)


def test_flips_and_turns_move_boxes_exactly(objects):
    for function in (flip, flip_vertically, *(lambda s, n=n: turn(s, n) for n in range(5))):
        result = function(objects)
        check_boxes(result, tolerance=0)
        assert result.labels.tolist() == objects.labels.tolist()
    assert turn(objects, 1).image.size == (77, 101)
    assert np.array_equal(np.asarray(turn(objects, 1).image), np.rot90(np.asarray(objects.image)))  # counterclockwise


def test_a_turn_goes_round(objects):
    half = turn(turn(objects, 3), 3)
    both = flip_vertically(flip(objects))
    for result, expected in ((turn(half, 2), objects), (half, both), (turn(objects, 0), objects)):
        assert np.array_equal(np.asarray(result.image), np.asarray(expected.image))
        assert torch.equal(result.boxes, expected.boxes)


@pytest.mark.parametrize(
    ("part", "min_visible", "kept"),
    [
        ((10, 10, 20, 20), 0.25, True),
        ((18, 10, 28, 20), 0.25, False),  # a fifth is visible
        ((18, 10, 28, 20), 0.2, True),
        ((18, 10, 28, 20), 0.0, True),
        ((15, 15, 25, 25), 1.0, True),  # a quarter, with the center on the edge
        ((12, 10, 40, 20), 1.0, False),  # the center is outside
        ((12, 10, 40, 20), 0.2, True),
        ((20, 10, 30, 20), 0.0, False),  # no area
    ],
)
def test_what_a_cut_keeps(part, min_visible, kept):
    """An object is kept with its center or enough of its area. part: its box; the image is cut at 20."""
    sample = colored(50, 50, [part])
    assert len(crop(sample, 0, 0, 20, 20, min_visible).boxes) == kept


@given(st.data())
def test_a_crop_around_an_object_keeps_one(data):
    width, height = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    boxes = []
    for _ in range(data.draw(st.integers(1, 3))):
        x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        boxes.append((x, y, data.draw(st.integers(x + 1, width)), data.draw(st.integers(y + 1, height))))
    sample = LabeledImage(Image.new("RGB", (width, height)), torch.tensor(boxes).float(), torch.arange(len(boxes)))
    size = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    for min_visible in (0.0, 0.25, 1.0):
        result = crop_around_object(sample, *size, min_visible, rng)
        assert result.image.size == size[::-1]
        assert len(result.boxes) >= 1
        assert (result.boxes[:, 2:] > result.boxes[:, :2]).all()


def test_a_crop_is_anywhere_around_its_object():
    sample = colored(30, 30, [(10, 10, 13, 13)])
    offsets = set()
    for seed in range(300):
        result = crop_around_object(sample, 7, 7, 0.25, np.random.default_rng(seed))
        check_boxes(result, tolerance=0)
        offsets.add((10 - int(result.boxes[0, 0]), 10 - int(result.boxes[0, 1])))
    assert len(offsets) > 20
    without = {
        crop_around_object(no_objects(30, 30), 7, 7, 0.25, np.random.default_rng(seed)).image.size for seed in range(9)
    }
    assert without == {(7, 7)}


@pytest.mark.parametrize("scale", [0.25, 0.77, 1.0, 1.3, 3.0])
@pytest.mark.parametrize("size", [(77, 101), (154, 202)])
def test_scale_jitter_keeps_the_size_and_scales_objects(objects, scale, size):
    for seed in range(4):
        result = jitter_scale(objects, scale, *size, 0.25, np.random.default_rng(seed))
        assert result.image.size == size[::-1]
        assert len(result.boxes) >= 1
        check_boxes(result, tolerance=1.0 if scale <= 1 else 1.5)
        inside = ((result.boxes[:, :2] > 0.5) & (result.boxes[:, 2:] < torch.tensor(result.image.size) - 0.5)).all(-1)
        before = objects.boxes[result.labels[inside]]
        ratio = (result.boxes[inside, 2:] - result.boxes[inside, :2]) / (before[:, 2:] - before[:, :2])
        wanted = torch.tensor([size[1] / 101, size[0] / 77]) * scale
        assert torch.allclose(ratio, wanted.expand_as(ratio), rtol=0.05)  # of whole pixels of a small image


def test_scale_jitter_pads_with_what_normalizes_to_zero():
    result = jitter_scale(no_objects(40, 40), 0.5, 40, 40, 0.25, np.random.default_rng(0))
    padding = (np.asarray(result.image) == FILL).all(-1)
    assert padding.sum() == 40 * 40 - 20 * 20
    assert to_pixels(result.image)[:, torch.from_numpy(padding)].abs().max() < 0.5 / 255 / 0.224 + 1e-6


def tiles(*sizes: tuple[int, int]) -> list[LabeledImage]:
    """Images with two objects each, one of them at the right border, all of different colors."""
    return [
        colored(w, h, [(w // 8, h // 8, w // 2, h // 2), (w * 5 // 8, h * 5 // 8, w, h * 7 // 8)], 2 * i)
        for i, (w, h) in enumerate(sizes)
    ]


@pytest.mark.parametrize("size", [(80, 100), (101, 77), (160, 200)])
def test_boxes_of_a_mosaic_follow_their_objects(size):
    images = tiles((100, 80), (64, 96), (120, 60), (97, 101))
    kept: set[int] = set()
    for seed in range(12):
        result = mosaic(images, *size, 0.25, np.random.default_rng(seed))
        assert result.image.size == size[::-1]
        check_boxes(result, tolerance=1.5)
        assert {label // 2 for label in result.labels.tolist()} == {0, 1, 2, 3}  # each image keeps an object
        kept |= set(result.labels.tolist())
    assert kept == set(range(8))


def test_a_mosaic_has_its_images_in_their_places():
    images = [replace(no_objects(9, 7), image=Image.new("RGB", (9, 7), tuple(COLORS[i].tolist()))) for i in range(4)]
    lines = set()
    for seed in range(60):
        result = np.asarray(mosaic(images, 40, 80, 0.25, np.random.default_rng(seed)).image)
        for i, (rows, columns) in enumerate([(0, 0), (0, 79), (39, 0), (39, 79)]):
            assert (result[rows, columns] == COLORS[i]).all()
        row = int((result[:, 0] == COLORS[0]).all(-1).sum())
        column = int((result[0] == COLORS[0]).all(-1).sum())
        assert (result[:row, column:] == COLORS[1]).all()
        assert (result[row:, column:] == COLORS[3]).all()
        lines.add((row, column))
    rows, columns = zip(*lines, strict=True)
    assert (min(rows), max(rows)) == (10, 30)
    assert 20 <= min(columns) < 25 < 55 < max(columns) <= 60


def test_a_mosaic_of_anything():
    """Images without objects, of a pixel and of extreme shapes; mosaics of a few pixels."""
    for size in [(1, 1), (1, 7), (2, 2), (3, 50), (40, 40)]:
        for seed in range(10):
            odd = [
                no_objects(1, 1),
                colored(1, 1, [(0, 0, 1, 1)], 1),
                no_objects(4000, 2),
                colored(3, 900, [(0, 9, 3, 70)], 3),
            ]
            result = mosaic(odd, *size, 0.25, np.random.default_rng(seed))
            assert result.image.size == size[::-1]
            assert result.boxes.shape == (len(result.labels), 4)
            assert {1, 3} >= set(result.labels.tolist())
            assert (result.boxes[:, 2:] > result.boxes[:, :2]).all()
    nothing = mosaic([no_objects(8, 8)] * 4, 20, 20, 0.25, np.random.default_rng(0))
    assert nothing.boxes.shape == (0, 4)
    assert nothing.labels.dtype == torch.int64


def test_a_mosaic_names_its_images():
    images = [replace(no_objects(8, 8), name=f"{name}.jpg") for name in "abcd"]
    assert mosaic(images, 8, 8, 0.25, np.random.default_rng(0)).name == "mosaic of a.jpg, b.jpg, c.jpg, d.jpg"


# --- colors ---


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_colors_without_strength_stay():
    image = noise()
    assert np.array_equal(np.asarray(change_colors(image, 1.0, 1.0, 1.0, 0.0)), np.asarray(image))


@pytest.mark.parametrize(
    "factors", [(0.9, 1.0, 1.0), (1.0, 0.6, 1.0), (1.0, 1.0, 0.4), (0.8, 0.7, 1.3), (1.1, 1.2, 0.0)]
)
def test_color_factors_are_those_of_pillow(factors):
    image = noise().point([64 + value // 2 for value in range(256)] * 3)  # nothing is clipped on the way
    expected = image
    for enhancer, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        expected = enhancer(expected).enhance(factor)
    result = change_colors(image, *factors, 0.0)
    difference = np.abs(np.asarray(result, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.max() <= 3  # Pillow rounds down after every factor


def test_each_color_change_changes_what_it_says():
    image = noise()
    before = np.asarray(image, dtype=float)
    brighter, flatter, gray, green = (
        np.asarray(change_colors(*each), dtype=float)
        for each in (
            (image, 0.5, 1.0, 1.0, 0.0),
            (image, 1.0, 0.5, 1.0, 0.0),
            (image, 1.0, 1.0, 0.0, 0.0),
            (Image.new("RGB", (2, 2), (255, 0, 0)), 1.0, 1.0, 1.0, 1 / 3),
        )
    )
    assert np.abs(brighter - before / 2).max() <= 1
    assert abs(flatter.std() / before.std() - 0.5) < 0.02
    assert abs(flatter.mean() - before.mean()) < 3
    assert (gray == gray[..., :1]).all()
    assert green[0, 0] == pytest.approx([0, 255, 0], abs=4)


def test_a_hue_goes_round():
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    assert change_colors(red, 1.0, 1.0, 1.0, 1.0).getpixel((0, 0)) == (255, 0, 0)
    turned = [change_colors(red, 1.0, 1.0, 1.0, hue).getpixel((0, 0)) for hue in (-1 / 3, 2 / 3)]
    assert turned[0] == turned[1] == pytest.approx((0, 0, 255), abs=6)


# --- all together ---

ALL = DataSettings(
    short_sides=(96, 120),
    max_size=200,
    crop_short_sides=(80,),
    crop_min=50,
    crop_max=90,
    vertical_flip=0.5,
    quarter_turns=0.75,
    scale_jitter=0.6,
    color_jitter=0.5,
    hue=0.0,
    saturation=0.1,
    contrast=0.1,
)


@pytest.mark.parametrize("seed", range(40))
def test_boxes_follow_their_objects_through_everything(seed):
    """All functions one after the other, on images of odd sizes with objects at the borders."""
    rng = np.random.default_rng(seed)
    images = tiles((101, 77), (64, 96), (121, 60), (97, 101))
    sample = mosaic(images, 120, 150, 0.25, rng) if seed % 2 else colored(101, 77, BORDERS)
    result = augment(sample, ALL, rng)
    check_boxes(result, tolerance=2.0)  # twice resized
    assert len(result.boxes) > 0 or len(sample.boxes) > 0


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 1000), empty=st.booleans())
def test_everything_is_valid_for_any_image(height, width, seed, empty):
    boxes = torch.tensor([[0.0, 0.0, width, height], [width - 1.0, height - 1.0, width, height]])[: 0 if empty else 2]
    sample = LabeledImage(Image.new("RGB", (width, height)), boxes, torch.tensor([1, 2])[: len(boxes)])
    everything = ALL.model_copy(update={"scale_min": 0.1, "scale_max": 9.0, "hue": 0.5, "color_jitter": 1.0})
    result = augment(sample, everything, np.random.default_rng(seed))
    assert min(result.image.size) >= 1
    relative = result.relative_boxes()
    assert (relative[:, :2] - relative[:, 2:] / 2 > -1e-5).all()
    assert (relative[:, :2] + relative[:, 2:] / 2 < 1 + 1e-5).all()
    assert (relative[:, 2:] > 0).all()
    assert len(result.labels) == len(result.boxes)


def published(sample: LabeledImage, settings: DataSettings, rng: np.random.Generator) -> LabeledImage:
    """The published augmentation alone, with the draws of version 0.1.0."""
    if rng.random() < settings.flip:
        sample = flip(sample)
    if rng.random() < settings.crop:
        sample = resize_shorter(sample, int(rng.choice(settings.crop_short_sides)), None)
        size = [int(rng.integers(min(settings.crop_min, n), min(settings.crop_max, n) + 1)) for n in sample.image.size]
        top = int(rng.integers(sample.image.height - size[1] + 1))
        left = int(rng.integers(sample.image.width - size[0] + 1))
        sample = crop(sample, top, left, size[1], size[0])
    return resize_shorter(sample, int(rng.choice(settings.short_sides)), settings.max_size)


def test_what_is_off_changes_no_draw(objects):
    off = DataSettings(
        **{key: getattr(ALL, key) for key in ("short_sides", "max_size", "crop_short_sides", "crop_min", "crop_max")}
    )
    for seed in range(20):
        result, expected = (f(objects, off, np.random.default_rng(seed)) for f in (augment, published))
        assert np.array_equal(np.asarray(result.image), np.asarray(expected.image))
        assert torch.equal(result.boxes, expected.boxes)
        assert torch.equal(result.labels, expected.labels)


def test_same_seed_same_result(objects):
    for seed in range(5):
        first, second = (augment(objects, ALL, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
        assert torch.equal(first.boxes, second.boxes)


def test_probabilities_zero_and_one_are_exact(objects):
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    assert not any(chance(0.0, rng) for _ in range(9))
    assert rng.bit_generator.state == state
    assert all(chance(1.0, rng) for _ in range(1000))
    assert 200 < sum(chance(0.25, rng) for _ in range(1000)) < 300

    still = DataSettings(flip=0.0, crop=0.0, short_sides=(77,))
    always = still.model_copy(update={"vertical_flip": 1.0})
    for seed in range(20):
        result = augment(objects, always, np.random.default_rng(seed))
        assert torch.equal(result.boxes, flip_vertically(objects).boxes)
    turned = still.model_copy(update={"quarter_turns": 1.0})
    found = {tuple(augment(objects, turned, np.random.default_rng(seed)).boxes[0].tolist()) for seed in range(40)}
    assert found == {tuple(turn(objects, n).boxes[0].tolist()) for n in (1, 2, 3)}


def test_scale_jitter_replaces_the_crop(objects):
    jittered = ALL.model_copy(update={"scale_jitter": 1.0, "crop": 1.0, "quarter_turns": 0.0, "color_jitter": 0.0})
    sizes = {augment(objects, jittered, np.random.default_rng(seed)).image.size for seed in range(30)}
    assert sizes == {resized_size(77, 101, short, 200)[::-1] for short in (96, 120)}


def test_jitter_without_strength_is_the_identity(objects):
    none = {"color_jitter": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    same = DataSettings(flip=0.0, crop=0.0, short_sides=(77,), scale_jitter=1.0, scale_min=1.0, scale_max=1.0, **none)
    result = augment(objects, same, np.random.default_rng(0))
    assert np.array_equal(np.asarray(result.image), np.asarray(objects.image))
    assert torch.equal(result.boxes, objects.boxes)


def test_a_crop_of_a_long_image_takes_no_more_memory_than_others(monkeypatch):
    """The published code scales an image of 9000 x 3 to 1,800,000 x 600 pixels before it crops it."""
    scaled = []
    plain = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *rest: scaled.append(size) or plain(self, size, *rest)
    )
    sample = LabeledImage(Image.new("RGB", (9000, 3)), torch.tensor([[0.0, 0.0, 9000.0, 3.0]]), torch.tensor([1]))
    result = augment(sample, DataSettings(crop=1.0, crop_short_sides=(600,)), np.random.default_rng(0))
    assert scaled[0] == (57_000, 19)
    assert max(width * height for width, height in scaled) <= MAX_PIXELS
    assert len(result.boxes) == 1


def test_an_image_that_would_be_scaled_to_too_many_pixels_is_named():
    sample = LabeledImage(
        Image.new("RGB", (9000, 3)), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), "image x.png"
    )
    sentence = r"image x\.png of 9000 x 3 pixels would be scaled to 1800000 x 600, more than 33554432 pixels; crop it"
    with pytest.raises(ImageError, match=sentence):
        resize_shorter(sample, 600, None)
    with pytest.raises(ImageError, match=sentence):
        prepare(sample.image, InputSize((600, 10**9)), "image x.png")


def test_a_batch_that_would_be_padded_to_too_many_pixels_is_refused():
    images = [torch.zeros(1, 1, 1).expand(3, *size) for size in ((1, 10_000), (10_000, 1))]
    with pytest.raises(ImageError, match=r"as wide as 10000 and as high as 10000 pixels .* batch size of 1"):
        pad(images)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("data.short_sides=[480,100000]", "short_sides"),
        ("data.crop_short_sides=[6000]", "crop_short_sides"),
        ("data.eval_short_side=100000", "eval_short_side"),
    ],
)
def test_sizes_in_settings_are_bounded(setting, key):
    large = ["data.max_size=100000", "data.eval_max_size=100000", "data.short_sides=[4096]"]
    load_settings("conditional-detr_r50_8xb2-50e_coco", large)
    with pytest.raises(SettingsError, match=f"{key}: height x width must be from 1 to 33554432 pixels"):
        load_settings("conditional-detr_r50_8xb2-50e_coco", [*large, setting])
