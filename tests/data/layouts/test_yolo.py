"""YOLO: data.yaml and obj.data, folders and lists, names of classes, and lines of label files."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from conditional_detr.config import DataSettings
from conditional_detr.data.layouts import coco, voc, yolo
from conditional_detr.data.layouts.yolo_files import read_labels
from conditional_detr.data.listing import Listing
from conditional_detr.errors import DataError
from tests.conftest import SHARED, needs_shared
from tests.data.layouts import listings
from tests.data.layouts.listings import boxes_in_pixels, image, linked, problems, rows, rows_of_coco, write

DATA = SHARED / "data"
LINE = "1 0.5 0.5 0.5 0.25\n"
NAMES = {"names": ["cat", "dog"]}
BOX = [0.25, 0.375, 0.5, 0.25]


def read(root: Path, split="train", **settings) -> Listing:
    listing = listings.read(yolo, root, split, **settings)
    assert listing.fractions
    assert not listing.sizes.any()
    return listing


def refused(root: Path, split="train", **settings) -> str:
    return listings.refused(yolo, root, split, **settings)


def labeled(images: Path, *names: str, line: str | bytes = LINE, labels: Path | None = None) -> None:
    """Write images, and label files in the folder "labels" beside "images"."""
    labels = labels or Path("labels".join(str(images).rsplit("images", 1)))
    for name in names:
        image(images / name)
        write(labels / f"{os.path.splitext(name)[0]}.txt", line)


def data_yaml(root: Path, name="data.yaml", **values) -> Path:
    return write(root / name, yaml.safe_dump(values))


def usual(root: Path, line: str | bytes = LINE, **values) -> Path:
    """Write a data set with a data.yaml: an image for training, one for validation."""
    labeled(root / "images" / "train", "a.png", line=line)
    labeled(root / "images" / "val", "b.png")
    data_yaml(root, **{"train": "images/train", "val": "images/val", **NAMES, **values})
    return root


# --- real data ---


@needs_shared("data/vehicles")
@pytest.mark.parametrize("split", ["train", "val"])
def test_vehicles_equal_their_coco_form(split):
    listing = read(DATA / "vehicles" / "yolo", split)
    files, objects = rows_of_coco(DATA / "vehicles" / "coco" / "annotations" / f"instances_{split}.json")
    assert listing.file_names == files
    assert [row[:2] for row in rows(listing)] == [row[:2] for row in objects]
    np.testing.assert_array_equal(boxes_in_pixels(listing), [row[2:] for row in objects])
    assert listing.categories.names == ("Ambulance", "Bus", "Car", "Motorcycle", "Truck")
    assert listing.categories.ids == (0, 1, 2, 3, 4)
    assert list(listing.image_ids) == list(range(1, len(files) + 1))
    assert problems(listing) == {}


@needs_shared("data/coco_yolo")
@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_images_equal_their_coco_form(split):
    listing = read(DATA / "coco_yolo" / "yolo" / "data.yaml", split)
    files, objects = rows_of_coco(DATA / "coco_yolo" / "coco" / "annotations" / f"instances_{split}.json")
    assert [Path(name).name for name in listing.file_names] == [Path(name).name for name in files]
    assert [(Path(row[0]).name, row[1]) for row in rows(listing)] == [(Path(row[0]).name, row[1]) for row in objects]
    np.testing.assert_allclose(boxes_in_pixels(listing), [row[2:] for row in objects], atol=0.005, rtol=0)
    assert len(listing.categories) == 80
    assert problems(listing) == ({"without_file": 1} if split == "train" else {})


@needs_shared("data/vehicles")
def test_vehicles_equal_what_supervision_reads(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        supervision = pytest.importorskip("supervision")
    source = DATA / "vehicles" / "yolo"
    names = sorted(file.stem for file in (source / "valid" / "images").iterdir())[:20]
    linked(source / "valid" / "images", tmp_path / "train" / "images", [f"{name}.jpg" for name in names])
    linked(source / "valid" / "labels", tmp_path / "train" / "labels", [f"{name}.txt" for name in names])
    linked(source, tmp_path / "parts", ["data.yaml"])
    data_yaml(tmp_path, train="train/images", names=yaml.safe_load((source / "data.yaml").read_text())["names"])
    folders = tmp_path / "train" / "images", tmp_path / "train" / "labels", tmp_path / "data.yaml"
    found = supervision.DetectionDataset.from_yolo(*map(str, folders))
    theirs = {os.path.basename(path): each for path, each in found.annotations.items()}
    listing = read(tmp_path)
    boxes = boxes_in_pixels(listing)
    for owner, file in enumerate(listing.file_names):
        ours = boxes[listing.owners == owner]
        each = theirs[os.path.basename(file)]
        np.testing.assert_allclose(np.hstack([ours[:, :2], ours[:, :2] + ours[:, 2:]]), each.xyxy, atol=1e-3)
        assert listing.labels[listing.owners == owner].tolist() == each.class_id.tolist()


# --- data.yaml ---


@pytest.mark.parametrize("name", ["data.yaml", "dataset.yaml", "data.yml", "cats.yaml"])
def test_root_is_the_file_or_its_folder(tmp_path, name):
    usual(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / name)
    for root in (tmp_path, tmp_path / name):
        assert rows(read(root)) == [("images/train/a.png", "dog", *BOX)]
        assert read(root).folder == tmp_path
        assert read(root, "val").file_names == ["images/val/b.png"]


@pytest.mark.parametrize(
    "values",
    [
        {"path": "."},
        {"path": ""},
        {"path": "/content/datasets/x"},
        {"path": "../elsewhere"},
        {"path": "../nearby"},
        {"path": "images", "train": "train", "val": "val"},
        {"train": "../images/train", "val": "../images/val"},
        {"train": "./images/train/", "val": "./images/val"},
        {"train": "images\\train", "val": "images\\val"},
        {"train": "/content/x/images/train", "val": "/content/x/images/val"},
        {"train": "C:\\x\\images\\train", "val": "C:/x/images/val"},
        {"train": ["images/train"], "val": ["images/val"]},
        {"val": None, "valid": "images/val"},
        {"val": "", "validation": "images/val"},
        {"train": "train.txt", "val": "lists/val.txt"},
    ],
    ids=str,
)
def test_paths(tmp_path, values):
    root = usual(tmp_path / "nearby", **values)
    write(root / "train.txt", "./images/train/a.png\n")
    write(root / "lists" / "val.txt", "\ufeff../images/val/b.png\r\n\r\n")
    for split, name in (("train", "a.png"), ("val", "b.png")):
        listing = read(root, split)
        assert [Path(each).name for each in listing.file_names] == [name]
        assert len(listing.boxes) == 1
        assert problems(listing) == {}


def test_absolute_paths(tmp_path):
    root = usual(tmp_path / "data", path=str(tmp_path / "data"), train=str(tmp_path / "data" / "images" / "train"))
    assert read(root).file_names == ["images/train/a.png"]
    data_yaml(tmp_path / "other", path=str(root), train="images/train", val="images/val", **NAMES)
    assert read(tmp_path / "other").folder == root
    assert read(tmp_path / "other" / "data.yaml", "val").file_names == ["images/val/b.png"]


def test_folders_outside_the_root(tmp_path):
    usual(tmp_path / "a")
    usual(tmp_path / "b", train=["images/train", str(tmp_path / "a" / "images" / "train")])
    listing = read(tmp_path / "b")
    assert listing.folder == tmp_path
    assert listing.file_names == ["a/images/train/a.png", "b/images/train/a.png"]


def test_paths_relative_to_the_working_folder(tmp_path, monkeypatch):
    usual(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert read(Path("a")).file_names == ["images/train/a.png"]
    monkeypatch.chdir(tmp_path / "a")
    assert read(Path()).file_names == ["images/train/a.png"]
    assert read(Path("data.yaml"), "val").file_names == ["images/val/b.png"]


def test_paths_that_do_not_exist(tmp_path):
    message = refused(usual(tmp_path, train="../photos/train"))
    assert "'../photos/train' does not exist" in message
    assert str(tmp_path / "photos" / "train") in message
    assert str(tmp_path / "train") in message
    usual(tmp_path / "x", train="../images/train")
    labeled(tmp_path / "images" / "train", "c.png")
    assert "may be" in refused(tmp_path / "x")
    assert "holds no images" in refused(usual(tmp_path / "y", train="labels"))
    assert "neither a folder of images nor a .txt list" in refused(usual(tmp_path / "z", train="data.yaml"))


def test_missing_splits(tmp_path):
    usual(tmp_path, val=None)
    assert not yolo.recognize(tmp_path, "val")
    assert "has no 'val'" in refused(tmp_path, "val")
    data_yaml(tmp_path, val="images/val", **NAMES)
    assert not yolo.recognize(tmp_path, "train")
    data_yaml(tmp_path, train="images/train", test="images/val", **NAMES)
    assert problems(read(tmp_path, "val")) == {"test_split": 1}


def test_the_image_folder_of_the_settings(tmp_path):
    usual(tmp_path)
    labeled(tmp_path / "more" / "images", "c.png")
    assert read(tmp_path, train_images=tmp_path / "more" / "images").file_names == ["more/images/c.png"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"names": "cat"}, "names is 'cat'"),
        ({"names": ["cat", None]}, "calls class 1 None"),
        ({"names": ["cat", True]}, "calls class 1 True"),
        ({"names": ["cat", ["dog"]]}, "calls class 1 ['dog']"),
        ({"names": {"x": "cat"}}, "has the key 'x'"),
        ({"names": {-1: "cat"}}, "has the key '-1'"),
        ({"nc": 3}, "gives 2 names, but nc is 3"),
        ({"nc": "many"}, "nc is 'many'"),
        ({"nc": 0}, "nc is 0"),
        ({"train": {"a": "b"}}, "train is {'a': 'b'}"),
        ({"train": [3]}, "train is [3]"),
        ({"train": "\0"}, "train is"),
        ({"kpt_shape": 17}, "kpt_shape is 17"),
        ({"kpt_shape": [17, 4]}, "kpt_shape is [17, 4]"),
    ],
    ids=str,
)
def test_wrong_values(tmp_path, values, said):
    message = refused(usual(tmp_path, **values))
    assert said in message
    assert "data.yaml" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: [", "is not valid YAML"),
        ("train: a\ntrain: b\nnames: [a]", "'train' is given twice"),
        ("train: &x a\nval: *x\nnames: [a]", "write the value in place of *x"),
        ("train: !!python/object:os.system a", "leave out the tag"),
        (b"train: \xff", "is not text in UTF-8"),
    ],
)
def test_invalid_yaml(tmp_path, text, said):
    usual(tmp_path)
    write(tmp_path / "data.yaml", text)
    assert yolo.recognize(tmp_path, "train")
    assert yolo.recognize(tmp_path, "val")
    assert said in refused(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.2 0.2 0.9 1", "look like a confidence and a track id"),
        ("0 0.5 0.5 0.2 0.2 0.9 7", "look like a confidence and a track id"),
        (
            "0 0.5 0.5 0.2 0.2 0.1 0.1 2 0.2 0.2 0",
            r"look like a box with keypoints; set kpt_shape in data.yaml, such as [2, 3]",
        ),
    ],
)
def test_numbers_that_are_as_many_as_those_of_a_polygon(tmp_path, line, said):
    assert said in refused(usual(tmp_path, line=line))


def test_a_polygon_along_two_edges_is_one(tmp_path):
    listing = read(usual(tmp_path, line="0 0 0 0.5 0 0.5 0.8 0 0.8 0 0"))
    assert len(listing.boxes) == 1


@pytest.mark.parametrize("order", ["utf-16", "utf-16-be"])
def test_a_data_file_in_utf_16_is_not_overlooked(tmp_path, order):
    """As PowerShell and Notepad may write it."""
    usual(tmp_path)
    text = (tmp_path / "data.yaml").read_text()
    mark = b"\xfe\xff" if order == "utf-16-be" else b""
    (tmp_path / "data.yaml").write_bytes(mark + text.encode(order))
    write(tmp_path / "classes.txt", "dog\ncat\n")
    assert "data.yaml is not text in UTF-8" in refused(tmp_path)


def test_a_split_in_the_folder_itself(tmp_path):
    labeled(tmp_path, "a.png", labels=tmp_path)
    data_yaml(tmp_path, train=".", val="./", **NAMES)
    assert len(read(tmp_path).boxes) == 1


def test_several_yaml_files(tmp_path):
    usual(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "one.yaml")
    write(tmp_path / "config.yaml", "train:\n  epochs: 3\n")  # settings of a run
    assert len(read(tmp_path).boxes) == 1
    usual(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "two.yaml")
    assert "one.yaml" in refused(tmp_path)
    assert "set data.root to one of them" in refused(tmp_path)
    assert len(read(tmp_path / "two.yaml").boxes) == 1


# --- without data.yaml ---


def test_darknet(tmp_path):
    """As CVAT and Darknet write it: images and labels in one folder, paths that refer to a folder around."""
    labeled(tmp_path / "obj_train_data", "a.png", "c.png", labels=tmp_path / "obj_train_data")
    labeled(tmp_path / "obj_valid_data", "b.png", labels=tmp_path / "obj_valid_data")
    write(
        tmp_path / "obj.data",
        "# by CVAT\nclasses = 2\ntrain = data/train.txt\nvalid=data/valid.txt\nnames = data/obj.names\nbackup = x/",
    )
    write(tmp_path / "obj.names", "cat\ndog\n")
    write(tmp_path / "train.txt", "data/obj_train_data/c.png\ndata/obj_train_data/a.png\n")
    write(tmp_path / "valid.txt", "/home/me/data/obj_valid_data/b.png\n")
    listing = read(tmp_path)
    assert rows(listing) == [("obj_train_data/a.png", "dog", *BOX), ("obj_train_data/c.png", "dog", *BOX)]
    assert problems(listing) == {}
    assert read(tmp_path / "obj.data", "val").file_names == ["obj_valid_data/b.png"]
    (tmp_path / "obj.names").unlink()
    assert "names is 'data/obj.names'" in refused(tmp_path)


@pytest.mark.parametrize("images", ["images/{}", "{}/images", "Images/{}2017", "{}"])
@pytest.mark.parametrize("names", ["classes.txt", "obj.names", "cats.names", "labels/classes.txt"])
@pytest.mark.parametrize("val", ["valid", "test"])
def test_folders_per_split(tmp_path, images, names, val):
    beside = images == "{}"
    for split, name in (("train", "a.png"), (val, "b.png")):
        folder = tmp_path / images.format(split)
        labels = folder if beside else Path(str(folder).replace("images", "labels").replace("Images", "Labels"))
        labeled(folder, name, labels=labels)
    folder = tmp_path / ("Labels" if "Images" in images else "labels")
    write(folder / "classes.txt" if "/" in names else tmp_path / names, "cat\ndog\n")
    assert [row[1:] for row in rows(read(tmp_path))] == [("dog", *BOX)]
    listing = read(tmp_path, "val")
    assert [Path(each).name for each in listing.file_names] == ["b.png"]
    assert problems(listing) == ({"test_split": 1} if val == "test" else {})


@pytest.mark.parametrize("folder", ["images", ""])
def test_without_splits_all_is_for_training(tmp_path, folder):
    labeled(tmp_path / folder, "b.png", "a.png", labels=None if folder else tmp_path)
    write(tmp_path / ("labels" if folder else "") / "classes.txt", "cat\ndog\n")
    assert [Path(each).name for each in read(tmp_path).file_names] == ["a.png", "b.png"]
    assert problems(read(tmp_path)) == {}
    assert not yolo.recognize(tmp_path, "val")
    assert "no val split" in refused(tmp_path, "val")


def test_a_root_called_test_is_no_test_split(tmp_path):
    labeled(tmp_path / "test" / "images", "a.png")
    write(tmp_path / "test" / "classes.txt", "cat\ndog\n")
    assert problems(read(tmp_path / "test")) == {}


def test_lists_without_data_yaml(tmp_path):
    labeled(tmp_path / "images", "a.png", "b.png", "c.png")
    write(tmp_path / "train.txt", "images/b.png\n./images/a.png")
    write(tmp_path / "val.txt", "/elsewhere/images/c.png")
    assert read(tmp_path, categories=("cat", "dog")).file_names == ["images/a.png", "images/b.png"]
    assert read(tmp_path, "val", categories=("cat", "dog")).file_names == ["images/c.png"]


def test_wrong_lists(tmp_path):
    usual(tmp_path, train="train.txt")
    write(tmp_path / "train.txt", "\n")
    assert "lists no images" in refused(tmp_path)
    write(tmp_path / "train.txt", "images/train/a.png\nimages/train/x.png\n")
    assert "1 of 2 images" in refused(tmp_path)
    write(tmp_path / "train.txt", "images/train/a.png\nimages/train/a.png\n")
    assert problems(read(tmp_path)) == {"same_file": 1}
    write(tmp_path / "train.txt", "images/train/A.PNG\n")
    assert problems(read(tmp_path)) == {"file_name": 1}


def test_what_is_not_yolo(tmp_path):
    for layout in (tmp_path / "nowhere", write(tmp_path / "a.txt", LINE)):
        assert not yolo.recognize(layout, "train")
    image(tmp_path / "train" / "images" / "a.png")
    image(tmp_path / "images" / "train" / "a.png")
    write(tmp_path / "annotations" / "instances_train.json", "{}")
    write(tmp_path / "train" / "images" / "a.txt", "a cat on a mat")  # a caption
    assert not yolo.recognize(tmp_path, "train")
    assert "no train split in YOLO layout" in refused(tmp_path)


def test_layouts_side_by_side_are_both_recognized(tmp_path):
    """What reads the data then asks for data.layout."""
    labeled(tmp_path / "train" / "images", "a.png")
    write(tmp_path / "train" / "images" / "a.xml", "<annotation></annotation>")
    write(tmp_path / "train" / "annotations" / "a.xml", "<annotation></annotation>")
    write(tmp_path / "train" / "_annotations.coco.json", json.dumps({}))
    assert all(layout.recognize(tmp_path, "train") for layout in (coco, voc, yolo))


# --- names of classes ---


def test_names_as_a_map_with_gaps(tmp_path):
    usual(tmp_path, line="7 0.5 0.5 0.5 0.25", names={7: "dog", "2": "cat", 0: 9}, nc=8)
    listing = read(tmp_path)
    assert listing.categories.ids == (0, 2, 7)
    assert listing.categories.names == ("9", "cat", "dog")
    assert listing.labels.tolist() == [2]
    usual(tmp_path, line="3 0.5 0.5 0.5 0.25", names={7: "dog", 2: "cat"})
    assert "a.txt:1 has class 3, but the classes are 2, 7" in refused(tmp_path)


def test_names_of_the_settings(tmp_path):
    usual(tmp_path, names=None)
    message = refused(tmp_path)
    assert "gives the classes no names" in message
    assert str(tmp_path / "classes.txt") in message
    assert read(tmp_path, categories=("a", "b")).categories.names == ("a", "b")
    usual(tmp_path, names=None, nc=3)
    assert "nc is 3" in refused(tmp_path, categories=("a", "b"))
    usual(tmp_path)
    assert read(tmp_path, categories=("cat", "dog")).categories.names == ("cat", "dog")
    assert "leave out data.categories" in refused(tmp_path, categories=("dog", "cat"))


def test_repeated_names_are_told(tmp_path):
    usual(tmp_path, names=["cat", "cat", "Cat", "dog"])
    assert problems(read(tmp_path)) == {"same_category": 1, "similar_category": 1}


# --- label files ---


@pytest.mark.parametrize(
    "line",
    [
        "1 0.5 0.5 0.5 0.25",
        "\ufeff1 0.5 0.5 0.5 0.25\r\n\r\n",
        "\n 1\t.5   5e-1 0.50000 +0.25  \n\n",
        "1.0 0.5 0.5 0.5 0.25",
        "1 0.25 0.375 0.75 0.375 0.75 0.625 0.25 0.625",  # a rotated box, here upright
        "1 0.25 0.5 0.5 0.375 0.75 0.625",  # a triangle
    ],
    ids=repr,
)
def test_lines(tmp_path, line):
    listing = read(usual(tmp_path, line=line))
    assert rows(listing) == [("images/train/a.png", "dog", *BOX)]
    assert problems(listing) == ({"outline": 1} if len(line.split()) > 5 else {})


def test_boxes_and_polygons_in_one_file(tmp_path):
    listing = read(usual(tmp_path, line="0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.3 0.1 0.3 0.4\n1 0.5 0.5 0.5 0.25\n"))
    assert listing.labels.tolist() == [0, 1, 1]
    np.testing.assert_allclose(listing.boxes, [[0.4, 0.4, 0.2, 0.2], [0.1, 0.1, 0.2, 0.3], BOX])


@pytest.mark.parametrize("shape", [[2, 3], [3, 2]])
def test_keypoints(tmp_path, shape):
    usual(tmp_path, line=LINE.strip() + " 0.1 0.2 2 0.3 0.4 0\n" + LINE, kpt_shape=shape)
    assert read(tmp_path).boxes.tolist() == [BOX, BOX]
    usual(tmp_path, line="1 0.25 0.375 0.75 0.375 0.75 0.625 0.25 0.625", kpt_shape=shape)
    assert "a.txt:1 has 9 numbers; with this kpt_shape it needs 5 or 11" in refused(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 0.5 0.5 0.5 0.25 0.9", "has 6 numbers; 5 are needed"),
        ("1 0.5 0.5 0.5", "has 4 numbers"),
        ("1", "has 1 numbers; 5 are needed"),
        ("1 0.1 0.1 0.2 0.2 0.3 0.3 0.9", "has 8 numbers"),
        ("2 0.5 0.5 0.5 0.25", "has class 2, but there are 2 classes, 0 to 1"),
        ("-1 0.5 0.5 0.5 0.25", "has class -1"),
        ("1.5 0.5 0.5 0.5 0.25", "is '1.5 0.5"),
        ("dog 0.5 0.5 0.5 0.25", "is 'dog 0.5"),
        ("1 nan 0.5 0.5 0.25", "is '1 nan"),
        ("1 0.5 0.5 inf 0.25", "is '1 0.5 0.5 inf"),
        ("1 0.5 0.5 1e999 0.25", "is '1 0.5 0.5 1e999"),
        ("1 0.5 0.5 1_0 0.25", "is '1 0.5 0.5 1_0"),
        ("1 0.5 0.5 \u0661 0.25", "is '1 0.5 0.5"),
        ("1,0.5,0.5,0.5,0.25", "separate the numbers by spaces"),
        ("1 0,5 0,5 0,5 0,25", "separate the numbers by spaces"),
        ("1 x", "correct or remove the line"),
    ],
    ids=repr,
)
def test_wrong_lines(tmp_path, line, said):
    message = refused(usual(tmp_path, line=f"{LINE}\n{line}\n"))
    assert said in message
    assert f"{tmp_path / 'labels' / 'train' / 'a.txt'}:3" in message


@pytest.mark.parametrize("line", ["1 20 10 8 6", "1 0.5 0.5 1.2 0.5", "1 -0.2 0.5 0.1 0.1", "1 0 0 5 0 5 9"])
def test_coordinates_that_are_no_fractions(tmp_path, line):
    message = refused(usual(tmp_path, line=f"{LINE}{line}\n{line}\n"))
    assert "2 lines of label files have coordinates outside 0..1" in message
    assert "a.txt:2, with a box from" in message
    assert "divide x and width" in message


def test_rounding_beyond_the_image_is_kept(tmp_path):
    assert len(read(usual(tmp_path, line="1 1.000001 -0.000001 0.5 1.0001")).boxes) == 1


@pytest.mark.parametrize(
    "line", ["1 0.5 0.5 0 0.25", "1 0.5 0.5 0.5 -0.25", "1 0.5 0.5 0.5 0.5 0.5 0.5", "1 0.1 0.5 0.2 0.5 0.3 0.5"]
)
def test_boxes_without_area_are_counted_and_left_out(tmp_path, line):
    listing = read(usual(tmp_path, line=f"{line}\n{LINE}"))
    assert rows(listing) == [("images/train/a.png", "dog", *BOX)]
    assert problems(listing)["without_area"] == 1


def test_images_without_objects(tmp_path):
    usual(tmp_path)
    labeled(tmp_path / "images" / "train", "empty.png", line="")
    image(tmp_path / "images" / "train" / "none.png")
    listing = read(tmp_path)
    assert len(listing.file_names) == 3
    assert problems(listing) == {"without_file": 1}
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    (tmp_path / "labels" / "train" / "empty.txt").unlink()
    message = refused(tmp_path)
    assert "none of the 3 images has a label file" in message
    assert str(tmp_path / "labels" / "train") in message


def test_files_without_a_partner(tmp_path):
    usual(tmp_path)
    for name in ("b.txt", "c.txt", "classes.txt"):
        write(tmp_path / "labels" / "train" / name, LINE)
    write(tmp_path / "images" / "train" / "notes.md", "")
    write(tmp_path / "images" / "train" / "photo.HEIC", "")
    assert problems(read(tmp_path)) == {"orphan": 2, "unsupported": 1}


def test_label_files_beside_images(tmp_path):
    """The last folder "images" decides, and then the folder of the image itself."""
    root = tmp_path / "images" / "set"
    labeled(root / "images" / "images", "a.png")
    labeled(root / "other", "b.png", labels=root / "other")
    data_yaml(root, train=["images/images", "other"], **NAMES)
    assert len(read(root).boxes) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_not_read(tmp_path):
    usual(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    os.mkfifo(tmp_path / "labels" / "train" / "a.txt")
    assert "it is not a file" in refused(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
@pytest.mark.parametrize(
    "name",
    ["data.yaml", "x.yaml", "obj.data", "train.txt", "a.txt", "a.xml", "train/a.xml", "metadata.jsonl", "x.parquet"],
)
def test_recognizing_a_layout_reads_no_pipe(tmp_path, name):
    image(tmp_path / "a.png")
    (tmp_path / "train").mkdir()
    os.mkfifo(tmp_path / name)
    for layout in (voc, yolo):
        assert not layout.recognize(tmp_path, "train")


WORDS = st.one_of(
    st.sampled_from(["0", "1", "0.5", "-0.1", "1e5", "nan", ",", "\t", "\n", "\r\n", "#", "\ufeff"]),
    st.floats().map(str),
    st.integers().map(str),
    st.text(max_size=3),
)


@given(content=st.one_of(st.binary(max_size=40), st.lists(WORDS, max_size=14).map(" ".join)))
@limits(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_is_read_or_refused_in_a_sentence(tmp_path, content):
    file = tmp_path / "a.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        lines = read_labels(file)
    except DataError as error:
        message = str(error)
    else:
        message = ""
        assert np.isfinite([line.box for line in lines]).all()
    assert "\n" not in message


@given(
    text=st.lists(
        st.one_of(WORDS, st.sampled_from(["train: images", "names: [a]", "nc: 1", "val:", "- b", "path: /"]))
    ).map("\n".join)
)
@limits(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_data_yaml_is_read_or_refused_in_a_sentence(tmp_path, text):
    if not (tmp_path / "images").exists():
        labeled(tmp_path / "images", "a.png", line="0 0.5 0.5 0.1 0.1")
    write(tmp_path / "data.yaml", text.encode("utf-8", "surrogatepass"))
    try:
        yolo.read(DataSettings(root=tmp_path / "data.yaml"), "train")
    except DataError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
