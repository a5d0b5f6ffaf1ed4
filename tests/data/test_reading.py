"""From what files list to annotations: sizes and turns of the images, validation images, names that differ."""

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from conditional_detr.config import DataSettings
from conditional_detr.data import headers
from conditional_detr.data.headers import read_headers
from conditional_detr.data.images import ORIENTATION
from conditional_detr.data.reading import read_coco, read_split, turned_boxes
from conditional_detr.data.splitting import held_out
from conditional_detr.errors import DataError


def data_set(folder: Path, images, boxes=(), **image_changes) -> Path:
    """Write a COCO file of (name, image) pairs, with (image index, box) pairs as objects."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    file = folder / "annotations.json"
    listed = [
        {"id": i, "file_name": name, "width": image.width, "height": image.height, **image_changes}
        for i, (name, image) in enumerate(images)
    ]
    annotations = [{"id": i, "image_id": n, "category_id": 1, "bbox": box} for i, (n, box) in enumerate(boxes)]
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    file.write_text(json.dumps(content))
    return file


def rewritten(file: Path, **changes) -> None:
    content = json.loads(file.read_text())
    for image in content["images"]:
        image.update({key: change(image[key]) for key, change in changes.items()})
    file.write_text(json.dumps(content))


def plain(color=0) -> Image.Image:
    return Image.new("RGB", (12, 8), (color, 0, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_images(tmp_path, orientation):
    """A white rectangle is found at the turned box, in the image that Pillow turns."""
    stored = Image.new("RGB", (12, 8))
    stored.paste((255, 255, 255), (2, 1, 7, 3))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    box = np.array([[2, 1, 5, 2]], dtype=float)
    x, y, w, h = turned_boxes(box, np.array([[8, 12]]), np.array([orientation]))[0]
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "x.png"))
    assert upright.convert("L").getbbox() == (x, y, x + w, y + h)
    data = data_set(tmp_path / "d", [("x.png", stored)], [(0, [2, 1, 5, 2])])
    stored.save(tmp_path / "d" / "x.png", exif=exif)
    found = read_split(DataSettings(val_annotations=data, exif="raw"), "val")
    assert found.boxes.tolist() == [[x, y, w, h]]
    assert found.sizes.tolist() == [[upright.height, upright.width]]


def test_a_quarter_turn_confirms_the_frame_of_all_boxes(tmp_path):
    quarter, half = Image.Exif(), Image.Exif()
    quarter[ORIENTATION], half[ORIENTATION] = 6, 3
    file = data_set(tmp_path, [("a.jpg", plain()), ("b.jpg", plain())])
    plain().save(tmp_path / "b.jpg", exif=half)
    assert [each.kind for each in read_coco(file, [tmp_path]).problems] == ["maybe_turned"]
    upright = [each.kind for each in read_split(DataSettings(val_annotations=file, exif="upright"), "val").problems]
    assert upright == ["turned"]
    plain().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=quarter)  # upright: 12 x 8, as listed
    assert [each.kind for each in read_coco(file, [tmp_path]).problems] == ["turned"]


def test_another_size_is_named(tmp_path):
    file = data_set(tmp_path, [("a.png", plain()), ("b.png", plain())])
    plain().resize((24, 16)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"1 of 2 images .*b\.png is 24 x 16, but the annotations say 12 x 8; correct"):
        read_coco(file, [tmp_path])


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"x" * 100, "is not an image")])
def test_unreadable_images_are_named_or_left_out(tmp_path, content, reason):
    file = data_set(
        tmp_path, [("a.png", plain()), ("b.png", plain()), ("c.png", plain())], [(0, [1, 1, 2, 2]), (2, [3, 3, 4, 4])]
    )
    (tmp_path / "b.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"1 of 3 images .*b\.png {reason}.*data\.on_error=skip"):
        read_coco(file, [tmp_path])
    data = read_split(DataSettings(val_annotations=file, on_error="skip"), "val")
    assert list(data.file_names) == ["a.png", "c.png"]
    assert data.boxes[data.objects(1)].tolist() == [[3, 3, 4, 4]]
    assert [(each.kind, each.count) for each in data.problems if each.level == "warning"] == [("unreadable", 1)]


def test_missing_images_and_those_of_another_size_can_be_left_out(tmp_path):
    images = [(f"{name}.png", plain()) for name in "abcd"]
    file = data_set(tmp_path, images, [(i, [i, 1, 2, 2]) for i in range(4)])
    (tmp_path / "b.png").unlink()
    plain().resize((24, 16)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"1 of 4 images .* b\.png; .*data\.on_error=skip"):
        read_coco(file, [tmp_path])
    data = read_split(DataSettings(val_annotations=file, on_error="skip"), "val")
    assert list(data.file_names) == ["a.png", "d.png"]
    assert data.boxes[data.objects(1)].tolist() == [[3, 1, 2, 2]]
    left_out = {each.kind: each.images for each in data.problems if each.level == "warning"}
    assert left_out == {
        "missing": (f"{tmp_path / 'b.png'} does not exist",),
        "wrong_size": (f"{tmp_path / 'c.png'} is 24 x 16, but the annotations say 12 x 8",),
    }


def test_a_frame_that_explains_all_sizes_is_asked_for_even_if_images_may_be_left_out(tmp_path):
    file = data_set(tmp_path, [("a.png", plain()), ("b.png", plain())])
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    plain().save(tmp_path / "b.png", exif=exif)
    with pytest.raises(DataError, match=r"b\.png is 12 x 8 as stored and 8 x 12 after .*; set data\.exif=raw"):
        read_split(DataSettings(val_annotations=file, on_error="skip"), "val")


def test_a_pipe_among_the_images_is_named(tmp_path):
    file = data_set(tmp_path, [("a.png", plain())])
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png is a named pipe"):
        read_coco(file, [tmp_path])


@pytest.mark.parametrize(
    ("listed", "stored"),
    [
        ("sub\\a.png", "sub/a.png"),
        ("A.PNG", "a.png"),
        (unicodedata.normalize("NFD", "né.png"), unicodedata.normalize("NFC", "né.png")),
        ("/home/somebody/pictures/a.png", "a.png"),
        ("images/a.png", "train/a.png"),
        ("a.jpg", "a.png"),
        ("a", "a.png"),
    ],
)
def test_names_that_another_tool_changed_are_found_and_told(tmp_path, listed, stored):
    file = data_set(tmp_path, [(stored, plain()), ("other.png", plain(1))])
    rewritten(file, file_name=lambda name: listed if name == stored else name)
    data = read_coco(file, [tmp_path])
    assert data.file_names[0] == stored
    assert [(each.kind, each.count) for each in data.problems] == [("file_name", 1)]
    assert repr(listed) in data.problems[0].example


def test_a_name_that_fits_two_files_is_missing(tmp_path):
    file = data_set(tmp_path, [("x/a.png", plain()), ("y/a.png", plain())])
    rewritten(file, file_name=lambda name: "a.png" if name.startswith("x") else name)
    with pytest.raises(DataError, match=r"1 of 2 images .* the first is a\.png"):
        read_coco(file, [tmp_path])


def test_two_folders_with_the_same_names_are_refused(tmp_path):
    file = data_set(tmp_path / "annotations", [("a.png", plain())])
    for folder in ("train2017", "images/train2017"):
        data_set(tmp_path / folder, [("a.png", plain())])
    file.rename(tmp_path / "annotations" / "instances_train2017.json")
    with pytest.raises(DataError, match=r"both hold the images .* set data\.train_images"):
        read_split(DataSettings(root=tmp_path), "train")


def test_boxes_that_do_not_lie_in_their_image_are_counted(tmp_path):
    boxes = [[1, 1, 4, 4]] * 8 + [[20, 1, 4, 4], [1, 1, 30, 4], [1, 1, -3, 4], [-0.5, 0, 12.9, 8]]
    file = data_set(tmp_path, [("a.png", plain())], [(0, box) for box in boxes])
    found = {each.kind: each.count for each in read_coco(file, [tmp_path]).problems}
    assert found == {"outside": 1, "beyond": 1, "without_area": 1, "repeated_box": 7, "area": 11}


def test_corners_instead_of_sizes_are_recognized(tmp_path):
    file = data_set(tmp_path, [("a.png", plain())], [(0, [7, 2, 11, 5]), (0, [2, 4, 10, 7])])
    assert "corners" in {each.kind for each in read_coco(file, [tmp_path]).problems}


def test_a_fraction_is_held_out_the_same_way_every_time(tmp_path):
    images = [(f"{i:02}.png", plain(i)) for i in range(30)]
    images += [
        ("copy.png", plain(3)),
        ("cat_jpg.rf.0123456789abcdef0123.png", plain(90)),
        ("cat_jpg.rf.fedcba98765432100123.png", plain(91)),
    ]
    file = data_set(tmp_path, images, [(i, [1, 1, 2 + i / 10, 2]) for i in range(len(images))])
    settings = DataSettings(train_annotations=file, val_fraction=0.2)
    train, val = read_split(settings, "train"), read_split(settings, "val")
    assert len(val) == 7
    assert sorted([*train.file_names, *val.file_names]) == sorted(name for name, _ in images)
    assert list(read_split(settings, "val").file_names) == list(val.file_names)
    for one, other in (("03.png", "copy.png"), (images[-2][0], images[-1][0])):  # copies stay together
        assert (one in list(val.file_names)) == (other in list(val.file_names))
    for data in (train, val):  # objects stay with their images
        for i, name in enumerate(data.file_names):
            number = [each for each, _ in images].index(name)
            assert data.boxes[data.objects(i)].tolist() == [[1, 1, 2 + number / 10, 2]]
    whole = read_split(DataSettings(train_annotations=file), "train")
    many = [held_out(whole, fraction) for fraction in (0.05, 0.5, 0.95)]
    assert [int(held.sum()) for held in many] == [2, 16, 31]


def test_what_contradicts_a_fraction_is_refused(tmp_path):
    file = data_set(tmp_path, [("a.png", plain())])
    with pytest.raises(DataError, match=r"contradicts data\.val_annotations"):
        read_split(DataSettings(train_annotations=file, val_annotations=file, val_fraction=0.1), "val")
    with pytest.raises(DataError, match=r"can't split .* one image"):
        read_split(DataSettings(train_annotations=file, val_fraction=0.1), "val")
    with pytest.raises(DataError, match=r"data\.val=none"):
        read_split(DataSettings(train_annotations=file, val="none"), "val")


def test_headers_are_remembered_until_a_file_changes(tmp_path, monkeypatch):
    names = [f"{i}.png" for i in range(4)]
    for name in names:
        plain().save(tmp_path / name)
    monkeypatch.setattr(headers, "REMEMBERED_FROM", 1)
    opened: list[str] = []
    read = headers.read_header
    monkeypatch.setattr(headers, "read_header", lambda path: (opened.append(path.name), read(path))[1])
    first = read_headers(tmp_path, names)
    assert sorted(opened) == names
    plain().resize((20, 30)).save(tmp_path / "2.png")
    opened.clear()
    again = read_headers(tmp_path, names)
    assert opened == ["2.png"]
    assert again.sizes.tolist() == [[8, 12], [8, 12], [30, 20], [8, 12]]
    assert first.sizes.tolist() == [[8, 12]] * 4
    cached = next((headers.cache_folder() / "headers").glob("*.json"))
    cached.write_text('{"0.png": [1, 2], "1.png": null}')
    assert read_headers(tmp_path, names).sizes.tolist() == again.sizes.tolist()
