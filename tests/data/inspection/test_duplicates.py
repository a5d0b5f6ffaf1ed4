"""Copies of images are found in other sizes, formats and qualities; other images are not."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from conditional_detr.data.inspection.duplicates import alike, equal_files, thumbnails
from tests.conftest import SHARED, needs_shared
from tests.data.coco_data import picture

DATA = SHARED / "data"


def test_equal_files(tmp_path):
    contents = {"a": b"12", "b": b"34", "c": b"12", "d": b"345", "e": b"12", "f": b"34"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert equal_files([tmp_path / name for name in contents]) == [[0, 2, 4], [1, 5]]


@needs_shared("data/coco_mini")
@pytest.mark.parametrize("folder", ["coco_mini/images/val2017", "vehicles/yolo/valid/images"])
def test_photographs_are_alike_only_to_their_own_copies(tmp_path, folder):
    originals = sorted((DATA / folder).iterdir())[:6]
    files = []
    for i, file in enumerate(originals):
        image = Image.open(file).convert("RGB").reduce(2)
        image.save(tmp_path / f"{i}.png", compress_level=1)
        image.resize((image.width // 2, image.height // 2)).save(tmp_path / f"{i}-half.jpg")
        image.save(tmp_path / f"{i}-poor.jpg", quality=40)
        ImageEnhance.Brightness(image).enhance(0.85).save(tmp_path / f"{i}-dark.jpg")
        files += [tmp_path / f"{i}{end}" for end in (".png", "-half.jpg", "-poor.jpg", "-dark.jpg")]
    pictures, damaged = thumbnails(files)
    assert not damaged
    assert alike(pictures) == [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(len(originals))]


def test_shapes_are_not_alike(shapes_root):
    pictures, _ = thumbnails(sorted(shapes_root.rglob("*.png")))
    assert alike(pictures) == []


def test_upright_copies_of_turned_images_are_found(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    picture(1).transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    pictures, _ = thumbnails([tmp_path / "turned.jpg", tmp_path / "upright.png"])
    assert alike(pictures) == [[0, 1]]


def test_empty_pictures_are_not_compared(tmp_path):
    for i in range(3):
        Image.new("RGB", (9, 9), (i, i, i)).save(tmp_path / f"{i}.png")
    pictures, damaged = thumbnails(sorted(tmp_path.iterdir()))
    assert not damaged
    assert alike(pictures) == []
    assert alike(np.zeros((0, 256), dtype=np.float32)) == []


def test_groups_follow_the_first_picture_across_chunks(monkeypatch):
    monkeypatch.setattr("conditional_detr.data.inspection.duplicates._MOST", 8)
    rows = np.eye(256, dtype=np.float32)[[0, 1, 0, 2, 1, 0]]
    assert alike(rows) == [[0, 2, 5], [1, 4]]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_every_cut_file_is_damaged(tmp_path, suffix):
    """The scaled decoding of thumbnails reads files to their end."""
    content = io.BytesIO()
    picture(3, 320, 240).save(content, Image.registered_extensions()[suffix])
    whole = content.getvalue()
    files = []
    for cut in (1, 20, 200, len(whole) // 2, len(whole) - 300):
        files.append(tmp_path / f"{cut}{suffix}")
        files[-1].write_bytes(whole[:-cut])
    (tmp_path / f"whole{suffix}").write_bytes(whole)
    calls = []
    _, damaged = thumbnails([*files, tmp_path / f"whole{suffix}"], lambda *numbers: calls.append(numbers))
    readable = {0, 1} if suffix == ".png" else set()  # its end mark has 12 bytes, the checksum before it 4
    assert set(damaged) == set(range(len(files))) - readable
    assert str(files[2]) in damaged[2]
    assert calls == [(6, 6)]


def test_a_file_that_vanished_is_named(tmp_path):
    picture(0).save(tmp_path / "a.png")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "b.png")
    _, damaged = thumbnails([tmp_path / "a.png", tmp_path / "b.png"])
    assert "b.png is a link to a file that does not exist" in damaged[1]
