"""Decoding: what users' files are, and the one rule for each oddity."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from conditional_detr.data.images import from_array, read_image, to_rgb
from conditional_detr.errors import InputError
from tests.conftest import SHARED, needs_shared

ODD = SHARED / "odd-images"
MANIFEST = json.loads((ODD / "manifest.json").read_text())["files"] if ODD.exists() else []
SIZES = {
    "exif_rotate6.jpg": (240, 320),  # upright
    "exif_rotate3.jpg": (320, 240),
    "one_px.png": (1, 1),
    "wide_8000x20.jpg": (8000, 20),
    "tall_20x4000.jpg": (20, 4000),
}


@needs_shared("odd-images/manifest.json")
@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"])
def test_odd_files(entry):
    path = ODD / entry["file"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if entry["expect"] == "error":
            with pytest.raises(InputError, match=entry["file"]) as caught:
                read_image(path)
            assert "\n" not in str(caught.value)
            return
        image = read_image(path)
    assert image.mode == "RGB"
    if path.name in SIZES:
        assert image.size == SIZES[path.name]


@needs_shared("odd-images/manifest.json")
def test_16_bits_are_scaled_not_clipped():
    assert np.asarray(read_image(ODD / "gray16.png")).mean() == pytest.approx(127, abs=3)


@needs_shared("odd-images/manifest.json")
def test_exif_turns_the_picture_not_only_its_size():
    """Orientation 3 is upside down: the upright picture is the stored one turned by 180 degrees."""
    with Image.open(ODD / "exif_rotate3.jpg") as stored:
        turned = stored.convert("RGB").transpose(Image.Transpose.ROTATE_180)
    np.testing.assert_array_equal(np.asarray(read_image(ODD / "exif_rotate3.jpg")), np.asarray(turned))


def test_pixels_handed_over_are_not_turned():
    image = Image.new("RGB", (4, 2))
    image.getexif()[0x0112] = 6
    assert to_rgb(image).size == (4, 2)


@pytest.mark.parametrize("value", [0, 128, 257, 65535])
def test_16_bit_grey_maps_the_whole_range(value):
    image = Image.fromarray(np.full((2, 3), value, dtype=np.uint16))
    assert np.unique(np.asarray(to_rgb(image))).tolist() == [round(value / 257)]


def test_alpha_is_dropped():
    image = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert to_rgb(image).getpixel((0, 0)) == (10, 20, 30)


def test_float_pixels_are_refused():
    with pytest.raises(InputError, match="unknown range"):
        to_rgb(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(InputError, match="uint8"):
        from_array(array)


@pytest.mark.parametrize("missing", ["nowhere.jpg", ""])
def test_missing_files_and_folders_are_named(tmp_path, missing):
    with pytest.raises(InputError, match=r"does not exist|is a folder"):
        read_image(tmp_path / missing)
