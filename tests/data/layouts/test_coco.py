"""COCO annotation files: layouts, unusual ids, crowds, and messages of one sentence for mistakes."""

import json
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Names
from conditional_detr.data.check import fitted, training_warnings
from conditional_detr.data.reading import read_coco, read_split
from conditional_detr.errors import InputError
from tests.conftest import SHARED, needs_shared


def content(**changes):
    """Return annotations with sparse category ids, a crowd, a box without area, a box beyond the image and an empty image."""
    base = {
        "images": [
            {"id": 9, "file_name": "b.png", "width": 20, "height": 10},
            {"id": 4, "file_name": "a.png", "width": 10, "height": 10},
            {"id": 7, "file_name": "c.png", "width": 10, "height": 10},
        ],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 0, "bbox": [15, 5, 10, 10], "area": 100, "iscrowd": 0},
            {"id": 3, "image_id": 9, "category_id": 0, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 1},
            {"id": 4, "image_id": 9, "category_id": 17, "bbox": [3, 3, 0, 5], "area": 0},
        ],
        "categories": [{"id": 90, "name": "z"}, {"id": 0, "name": "a"}, {"id": 17, "name": "m"}],
    }
    return {**base, **changes}


def write(folder: Path, data, images: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "annotations.json"
    file.write_text(json.dumps(data))
    if images:
        for image in content()["images"]:
            Image.new("RGB", (image["width"], image["height"])).save(folder / image["file_name"])
    return file


def test_an_area_larger_than_its_box(tmp_path):
    """COCO's metric would leave the object out, or count it among larger ones. The area of the box is used, and that is told."""
    data = content()
    data["annotations"][0]["area"] = 2e10
    found = read_coco(write(tmp_path, data), [tmp_path])
    assert max(found.areas) == 100
    (problem,) = [each for each in found.problems if each.kind == "area"]
    assert "larger than the box" in str(problem)


def test_flat_arrays(tmp_path):
    file = write(tmp_path, content())
    data = read_coco(file, [tmp_path])
    assert data.categories.ids == (0, 17, 90)
    assert data.categories.names == ("a", "m", "z")
    assert data.image_ids.tolist() == [9, 4, 7]
    objects = [[part.tolist() for part in data.training_objects(i)] for i in range(3)]
    assert objects[0] == [[[15, 5, 20, 10]], [0]]  # clipped; without the crowd and the box without area
    assert objects[1] == [[[1, 2, 4, 6]], [2]]
    assert objects[2] == [[], []]  # an image without objects is kept
    assert data.object_counts.tolist() == [1, 1, 0]
    assert data.crowd.sum() == 1
    assert len(data.boxes) == 4  # evaluation takes all boxes, unchanged


@needs_shared("reference/unit_functions.json")
def test_objects_are_those_of_the_official_code(tmp_path):
    recorded = json.loads((SHARED / "reference" / "unit_functions.json").read_text())["coco_target"]
    height, width = recorded["height"], recorded["width"]
    Image.new("RGB", (width, height)).save(tmp_path / "x.png")
    ids = sorted({annotation["category_id"] for annotation in recorded["annotations"]})
    data = {
        "images": [{"id": 42, "file_name": "x.png", "width": width, "height": height}],
        "annotations": [{"id": i, "image_id": 42, **a} for i, a in enumerate(recorded["annotations"])],
        "categories": [{"id": i, "name": str(i)} for i in ids],
    }
    read = read_coco(write(tmp_path, data, images=False), [tmp_path])
    boxes, labels = read.training_objects(0)
    np.testing.assert_allclose(boxes, recorded["target"]["boxes"])
    assert [read.categories.ids[label] for label in labels] == recorded["target"]["labels"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": []}, "lists no images"),
        ({"categories": []}, "lists no categories"),
        ({"annotations": None}, "no list 'annotations'"),
        ({"images": [{"id": 1, "width": 9, "height": 9}]}, "image 1 has file_name None"),
        ({"images": [{"file_name": "a.png"}]}, "image 'a.png' has no 'id'"),
        (
            {"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}] * 2},
            "image id 1 is given to a.png and a",
        ),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "its own id"),
        ({"categories": [{"id": 1}]}, "category 1 has name None"),
        ({"categories": [{"id": 1.5, "name": "a"}]}, "id 1.5; ids must be whole numbers"),
        ({"annotations": [{"id": 5, "image_id": "x", "category_id": 0, "bbox": [0, 0, 1, 1]}]}, "annotation 5 .* 'x'"),
        (
            {"annotations": [{"id": 5, "image_id": 4, "category_id": 0, "bbox": [0, 0, 1, 1], "iscrowd": "maybe"}]},
            "annotation 5 of a.png has iscrowd 'maybe'",
        ),
        ({"annotations": [{"id": 5, "image_id": 4, "category_id": 3, "bbox": [0, 0, 1, 1]}]}, "annotation 5 .* 3"),
        ({"annotations": [{"id": 5, "image_id": 4, "category_id": 0}]}, "annotation 5 of a.png has no 'bbox'"),
        (
            {"annotations": [{"id": 5, "image_id": 4, "category_id": 0, "bbox": [1, 2]}]},
            "annotation 5 of a.png has bbox",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 4, "category_id": 0, "bbox": [0, 0, float("nan"), 1]}]},
            "needs four finite|number",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 4, "category_id": 0, "bbox": ["1", "2", "3", "x"]}]},
            "annotation 5 of a.png has bbox",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 4, "category_id": 0, "iscrowd": 1}]},
            "annotation 5 of a.png has no 'bbox'",
        ),
        ({"annotations": [{"id": 5, "image_id": [4], "category_id": 0, "bbox": [0, 0, 1, 1]}]}, "annotation 5"),
        ({"annotations": [None]}, "instead of a JSON object"),
        ({"categories": [{"id": "one", "name": "a"}]}, "must be whole numbers"),
        ({"images": [{"id": 2**70, "file_name": "a.png", "width": 9, "height": 9}]}, "whole numbers of 64 bits"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, sentence):
    file = write(tmp_path, content(**changes))
    with pytest.raises(InputError, match=sentence) as caught:
        read_coco(file, [tmp_path])
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_of_any_depth_are_refused(tmp_path):
    """Those just below the depth that the reader of JSON accepts, too, which ``repr`` can't show."""
    for depth in range(100, sys.getrecursionlimit() + 100, 10):
        file = tmp_path / "x.json"
        text = json.dumps(content(images=[{"id": "nested", "file_name": "a.png"}]))
        file.write_text(text.replace('"nested"', "[" * depth + "]" * depth))
        with pytest.raises(InputError, match=r"x\.json"):
            read_coco(file, [tmp_path])


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "x.json").write_text('{"images": [')
    with pytest.raises(InputError, match=r"x\.json is not valid JSON"):
        read_coco(tmp_path / "x.json", [tmp_path])
    with pytest.raises(InputError, match=r"y\.json can't be read"):
        read_coco(tmp_path / "y.json", [tmp_path])


def test_missing_images_are_named_before_training(tmp_path):
    file = write(tmp_path, content())
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images .* the first is a\.png"):
        read_coco(file, [tmp_path])
    with pytest.raises(InputError, match=r"b\.png, the first image .* set data\.val_images"):
        read_split(DataSettings(val_annotations=file, val_images=tmp_path / "elsewhere"), "val")


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train.json", "images/train2017"),
        ("annotations/instances_train.json", "images"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_layouts(tmp_path, annotations, images):
    write(tmp_path / images, content()).unlink()
    (tmp_path / annotations).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / annotations).write_text(json.dumps(content()))
    assert read_split(DataSettings(root=tmp_path), "train").folder == tmp_path / images


def test_roboflow_calls_validation_valid(tmp_path):
    folder = tmp_path / "valid"
    write(folder, content())
    (folder / "annotations.json").rename(folder / "_annotations.coco.json")
    assert len(read_split(DataSettings(root=tmp_path), "val")) == 3


@pytest.mark.parametrize("file", ["test/_annotations.coco.json", "annotations/instances_test2017.json"])
def test_a_test_split_stands_in_for_a_missing_validation_split(tmp_path, file):
    write(tmp_path / "test", content()).unlink()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content()))
    found = read_split(DataSettings(root=tmp_path), "val")
    assert found.folder == tmp_path / "test"
    assert ("test_split", 1) in [(problem.kind, problem.count) for problem in found.problems]
    assert "test_split" not in [problem.kind for problem in read_split(DataSettings(root=tmp_path), "test").problems]


def test_explicit_files(tmp_path):
    file = write(tmp_path / "pictures", content())
    settings = DataSettings(val_annotations=file, val_images=tmp_path / "pictures")
    assert read_split(settings, "val").folder == tmp_path / "pictures"


def test_nothing_found_says_where_it_looked(tmp_path):
    with pytest.raises(InputError, match=r"val annotations .*instances_SPLIT2017\.json.*set data\.val_annotations"):
        read_split(DataSettings(root=tmp_path), "val")
    with pytest.raises(InputError, match=r"set data\.root"):
        read_split(DataSettings(), "train")
    with pytest.raises(InputError, match="does not exist"):
        read_split(DataSettings(root=tmp_path / "no"), "train")


def test_data_one_folder_below_is_named(tmp_path):
    root = tmp_path / "export" / "train"
    write(root, content()).rename(root / "_annotations.coco.json")
    with pytest.raises(InputError, match=rf"set data\.root={tmp_path}/export, which holds some"):
        read_split(DataSettings(root=tmp_path), "train")


@needs_shared("data/coco_mini")
@pytest.mark.parametrize(
    ("root", "folder", "images", "boxes"),
    [
        ("coco_mini", None, 19, 165),
        ("bccd/coco", "bccd/voc/JPEGImages", 205, 2804),
        ("vehicles/coco", "vehicles/yolo", 439, 838),
    ],
)
def test_real_data(root, folder, images, boxes):
    folder = SHARED / "data" / folder if folder else None
    data = read_split(DataSettings(root=SHARED / "data" / root, train_images=folder), "train")
    crowds = sum(bool(a.get("iscrowd")) for a in json.loads(data.source.read_text())["annotations"])
    assert len(data) == images
    assert (len(data.labels), data.crowd.sum()) == (boxes, crowds)
    assert data.usable.sum() == boxes - crowds - sum(
        problem.count for problem in data.problems if problem.kind == "without_area"
    )


def test_warnings_name_image_category_and_remedy(tmp_path):
    data = read_coco(write(tmp_path, content()), [tmp_path])
    found = training_warnings(data, data, queries=0)
    assert any("b.png has 1 objects" in text and "model.queries=1" in text for text in found)
    assert any("category m:" in text for text in found)
    assert [(problem.kind, problem.count) for problem in data.problems if problem.level == "warning"] == [
        ("many_crowds", 1),
        ("without_area", 1),
        ("beyond", 1),
    ]
    enough = content(annotations=[a for a in content()["annotations"] if a["id"] < 3])
    enough["categories"] = [c for c in enough["categories"] if c["name"] != "m"]
    clean = read_coco(write(tmp_path, enough), [tmp_path])
    assert training_warnings(clean, clean, queries=1) == []
    (mosaics,) = training_warnings(clean, clean, queries=1, mosaics=True)
    assert re.search(
        r"mosaics of four images can have more than \d objects but .* only 1 queries.*; set model.queries=", mosaics
    )
    assert training_warnings(clean, clean, queries=10, mosaics=True) == []
    empty = read_coco(write(tmp_path, content(annotations=[])), [tmp_path])
    assert any("AP can't be measured" in text for text in training_warnings(clean, empty, 1))


def test_validation_data_takes_the_categories_of_the_training_data(tmp_path):
    train = read_coco(write(tmp_path / "a", content()), [tmp_path / "a"])
    renamed = content(categories=[{"id": 5, "name": "Z"}, {"id": 17, "name": "m"}, {"id": 0, "name": "unused"}])
    renamed["annotations"] = [{"id": 1, "image_id": 4, "category_id": 5, "bbox": [1, 2, 3, 4]}]
    val = fitted(read_coco(write(tmp_path / "b", renamed), [tmp_path / "b"]), train.categories)
    assert val.categories == train.categories
    assert [train.categories.names[label] for label in val.labels] == ["z"]
    assert {problem.kind for problem in val.problems} >= {"other_ids", "unlisted", "fewer"}
    unknown = content(categories=[{"id": 0, "name": "a"}, {"id": 17, "name": "m"}, {"id": 90, "name": "other"}])
    other = read_coco(write(tmp_path / "c", unknown), [tmp_path / "c"])
    with pytest.raises(InputError, match=r"boxes of category 'other' \(id 90\), which the training data does not list"):
        fitted(other, train.categories)


def test_names_are_a_sequence_of_any_text():
    texts = ["a.jpg", "", "naïve/雪.png", "\udc80.jpg", "a.jpg"]
    names = Names(texts)
    assert list(names) == texts
    assert names[-2:] == texts[-2:]
    assert names[-1] == "a.jpg"
    assert "雪" not in names
    with pytest.raises(IndexError):
        names[5]


def test_memory_of_annotations(tmp_path):
    """Annotations take at most 60 bytes per box, in arrays: Python objects would be copied into every loading process."""
    boxes = [[i % 500, i % 300, 20, 30] for i in range(14_000)]
    content = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "height": 480, "width": 640} for i in range(2000)],
        "annotations": [
            {"id": i, "image_id": i % 2000, "category_id": 1, "bbox": box, "area": 600, "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    Image.new("RGB", (640, 480)).save(tmp_path / "one.png")
    for image in content["images"]:
        (tmp_path / image["file_name"]).hardlink_to(tmp_path / "one.png")
    annotations = read_coco(tmp_path / "x.json", [tmp_path])
    parts = [part for each in (annotations, annotations.file_names) for part in vars(each).values()]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    assert sum(array.nbytes for array in arrays) / len(boxes) <= 60
    rest = [part for part in parts if not isinstance(part, (np.ndarray, Names))]
    assert len(pickle.dumps(rest)) < 1000


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 5, "[]", "1" * 10_000, '"x"', ""])
def test_annotation_files_that_are_no_object_are_refused(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json (is not valid JSON|must hold a JSON object)") as caught:
        read_coco(tmp_path / "x.json", [tmp_path])
    assert "\n" not in str(caught.value)
