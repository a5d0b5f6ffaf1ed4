"""The published augmentation equals the recorded numbers of the official functions, and is valid for any image."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conditional_detr.config import DataSettings, load_settings
from conditional_detr.data.batching import pad, prepare
from conditional_detr.data.images import to_pixels
from conditional_detr.data.transforms import LabeledImage, augment, crop, flip, resize_shorter, resized_size
from conditional_detr.errors import ImageError, SettingsError
from conditional_detr.record import MAX_PIXELS, InputSize
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
