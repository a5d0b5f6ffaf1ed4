"""Decoding of images of all kinds, including unusual and broken files."""

import io
import json
import os
import socket
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from conditional_detr.data.images import open_image, read_image, to_image, to_pixels, to_rgb
from conditional_detr.errors import ImageError, InputError
from tests.conftest import SHARED, needs_shared

ODD = SHARED / "odd-images"
MANIFEST = json.loads((ODD / "manifest.json").read_text())["files"] if ODD.exists() else []
SIZES = {
    "exif_rotate6.jpg": (240, 320),  # after rotation
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
    """EXIF orientation 3 means upside down: the stored image has to be rotated by 180 degrees."""
    with Image.open(ODD / "exif_rotate3.jpg") as stored:
        turned = stored.convert("RGB").transpose(Image.Transpose.ROTATE_180)
    np.testing.assert_array_equal(np.asarray(read_image(ODD / "exif_rotate3.jpg")), np.asarray(turned))


def test_pixels_handed_over_are_not_turned():
    image = Image.new("RGB", (4, 2))
    image.getexif()[0x0112] = 6
    assert to_rgb(image).size == (4, 2)


@pytest.mark.parametrize("value", [0, 128, 257, 65535])
def test_16_bit_gray_maps_the_whole_range(value):
    image = Image.fromarray(np.full((2, 3), value, dtype=np.uint16))
    assert np.unique(np.asarray(to_rgb(image))).tolist() == [round(value / 257)]


def test_alpha_is_dropped():
    image = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert to_rgb(image).getpixel((0, 0)) == (10, 20, 30)


def test_postscript_is_refused_before_it_could_run(tmp_path, monkeypatch):
    """Pillow decodes it with Ghostscript, an interpreter."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nquit\n%%EOF\n"
    file = tmp_path / "photo.jpg"
    file.write_bytes(content)
    for given in (file, content):
        with pytest.raises(ImageError, match="is a PostScript file, which is a program; convert it to PNG"):
            open_image(given)


def test_float_pixels_are_refused():
    with pytest.raises(InputError, match="unknown range"):
        to_rgb(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.full((2, 3), 7, np.uint8), 7),
        (np.full((2, 3, 1), 7, np.uint8), 7),
        (np.full((2, 3, 3), 7, np.uint8), 7),
        (np.full((2, 3, 4), 7, np.uint8), 7),
        (np.full((2, 3), 7 * 257, np.uint16), 7),
        (np.full((2, 3, 3), 7 / 255, np.float32), 7),
        (np.full((2, 3, 3), 7 / 255, np.float64), 7),
        (torch.full((3, 2, 3), 7, dtype=torch.uint8), 7),
        (torch.full((1, 2, 3), 7 / 255), 7),
        (torch.full((4, 2, 3), 7 / 255, dtype=torch.float64, requires_grad=True), 7),
        (torch.full((3, 2, 3), 1.0, dtype=torch.bfloat16), 255),
    ],
)
def test_arrays_and_tensors_that_people_have(pixels, expected):
    image = open_image(pixels)
    assert (image.mode, image.size) == ("RGB", (3, 2))
    assert set(np.asarray(image).ravel().tolist()) == {expected}


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((3, 40, 40), np.uint8), "move the channels last"),
        (np.zeros((2, 4, 4, 3), np.uint8), "several images.*as a list"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.full((4, 4, 3), 2.0), r"float pixels from 2 to 2; scale them to 0\.\.1"),
        (np.full((4, 4, 3), -0.1), "float pixels"),
        (np.full((4, 4, 3), np.nan), "float pixels from nan"),
        (np.zeros((4, 4, 3), np.int64), "type int64; give uint8"),
        (np.zeros((4, 4, 3), bool), "type bool; give uint8"),
        (np.zeros((4, 4, 3), complex), "type complex"),
        (np.array("x"), "shape"),
        (torch.zeros(40, 40, 3), "move the channels first"),
        (torch.zeros(1, 3, 4, 4), "several images.*as a list"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "type int32"),
        (None, "of type NoneType; give a path, a URL"),
        (7, "of type int; give a path"),
        ({"image": 1}, "of type dict"),
        (io.StringIO("x"), "opened as text; open it with mode 'rb'"),
        (b"no image", "is not an image of a known format"),
        (b"", "is empty"),
        ("a\0b.jpg", "can't be read"),
        ("http://127.0.0.1:9/x.jpg", "can't be fetched.*check the address"),
        ("http://127.0.0.1:9/my image.jpg", "can't be fetched.*check the address"),
        ("http://127.0.0.1:abc/x.jpg", "can't be fetched.*check the address"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(pixels, sentence):
    with pytest.raises(ImageError, match=sentence) as caught:
        open_image(pixels, "images[3]")
    assert "images[3]" in str(caught.value) or isinstance(pixels, str)
    assert "\n" not in str(caught.value)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None: ...


def test_bytes_open_files_and_urls(tmp_path):
    file = tmp_path / "x.png"
    Image.new("RGB", (3, 2), (10, 20, 30)).save(file)
    with file.open("rb") as stream:
        images = [open_image(each) for each in (str(file), file, file.read_bytes(), stream)]
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        images.append(open_image(f"{address}/x.png"))
        with pytest.raises(ImageError, match="File not found"):
            open_image(f"{address}/nothing.png")
        server.shutdown()
    assert all(image.getpixel((0, 0)) == (10, 20, 30) for image in images)


def test_an_opened_but_damaged_pil_image(tmp_path):
    file = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:5000])
    with Image.open(file) as image, pytest.raises(ImageError, match="damaged"):
        open_image(image)


@pytest.mark.parametrize("missing", ["nowhere.jpg", ""])
def test_missing_files_and_folders_are_named(tmp_path, missing):
    with pytest.raises(InputError, match=r"does not exist|is a folder"):
        read_image(tmp_path / missing)


def test_pixels_are_an_image_again():
    values = np.random.default_rng(0).integers(0, 256, (13, 9, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(to_image(to_pixels(Image.fromarray(values)))), values)
    assert np.asarray(to_image(torch.full((3, 2, 2), 99.0))).min() == 255


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_what_is_no_regular_file_is_refused_and_not_opened(tmp_path, monkeypatch):
    """Opening a pipe that nobody writes to would block for ever."""
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkfifo("pipe.jpg")
    os.symlink("pipe.jpg", "to-pipe.jpg")
    os.symlink("loop.jpg", "loop.jpg")
    os.symlink("nothing.jpg", "broken.jpg")
    os.mkdir("folder")
    os.symlink("folder", "to-folder")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        for name, sentence in {
            "pipe.jpg": "is a named pipe, not an image",
            "to-pipe.jpg": "is a named pipe",
            "loop.jpg": "is a link that leads to itself",
            "broken.jpg": "is a link to a file that does not exist",
            "to-folder": "is a link to a folder",
            "socket.jpg": "is a socket",
            "/dev/zero": "is a device",
        }.items():
            with pytest.raises(ImageError, match=f"{name} {sentence}"):
                read_image(name)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "locked").mkdir(mode=0)
    if os.access(tmp_path / "locked", os.R_OK):
        pytest.skip("this user may search any folder")
    with pytest.raises(ImageError, match="locked can't be searched; check its permissions"):
        read_image(tmp_path / "locked")


def test_extreme_proportions_are_refused_before_decoding(tmp_path, monkeypatch):
    for name, size in (("line.png", (20_001, 2)), ("tall.png", (1, 10_001)), ("long.png", (10_000, 1))):
        Image.new("1", size).save(tmp_path / name)
    assert read_image(tmp_path / "long.png").size == (10_000, 1)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"line\.png is 20001 x 2 pixels, one side more than 10000 times .*; crop it"):
        read_image(tmp_path / "line.png")
    with (
        Image.open(tmp_path / "tall.png") as image,
        pytest.raises(ImageError, match=r"images\[3\] is 1 x 10001 pixels"),
    ):
        open_image(image, "images[3]")
    with pytest.raises(ImageError, match=r"images\[3\] is 10001 x 1 pixels"):
        open_image(np.zeros((1, 10_001, 3), np.uint8), "images[3]")
    with pytest.raises(ImageError, match=r"images\[3\] has no pixels"):
        open_image(Image.new("RGB", (0, 5)), "images[3]")
