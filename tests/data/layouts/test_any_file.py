"""Annotation files of any content are read or refused in one sentence: a small valid file in which any value is any JSON value."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.reading import read_split
from conditional_detr.errors import InputError

VALID = {
    "info": {"description": "two images", "year": 2026},
    "images": [
        {"id": 9, "file_name": "b.png", "width": 20, "height": 10},
        {"id": 4, "file_name": "a.png", "width": 10, "height": 10},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 4,
            "category_id": 90,
            "bbox": [1, 2, 3.5, 4],
            "area": 14.0,
            "iscrowd": 0,
            "segmentation": [],
        },
        {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 1},
    ],
    "categories": [{"id": 90, "name": "z", "supercategory": "y"}, {"id": 3, "name": "a"}],
}
REMOVED = object()
NUMBERS = st.sampled_from(
    [
        0,
        -1,
        2.5,
        4.0,
        1e300,
        -1e300,
        10**30,
        10**400,
        2**31,
        2**63,
        2**64,
        1e-320,
        -0.0,
        "4",
        "4.0",
        "1e9",
        "٤",
        "nan",
        True,
    ]
) | st.sampled_from([3, 4, 9, 90])  # ids that are there
TEXTS = st.sampled_from(
    ["", ".", "..", "a.png", "./a.png", "/", "/etc/passwd", "a.png/x", "\0", "a\nb", "x" * 5000, "😀", "\u202e"]
)
VALUES = st.recursive(
    st.just(REMOVED) | st.none() | st.booleans() | NUMBERS | TEXTS | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner.filter(lambda value: value is not REMOVED), max_size=5)
        | st.dictionaries(
            st.sampled_from(["id", "name", "x"]), inner.filter(lambda value: value is not REMOVED), max_size=3
        )
    ),
    max_leaves=6,
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Return the paths of all values inside of ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, each in inner for place in ((*path, key), *places(each, (*path, key)))]


def changed(value: object, path: tuple, new: object) -> object:
    """Return a copy in which the value at ``path`` is ``new``, or is not there."""
    root = copy.deepcopy(value)
    parent = root
    for key in path[:-1]:
        parent = parent[key]
    if new is REMOVED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = new
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    (folder / "train").mkdir()
    for image in VALID["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(folder / "train" / image["file_name"])
    return folder


def read(folder: Path, content: object) -> Annotations | str:
    """Read a file of this content. Return the annotations, or the sentence that refuses them."""
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    try:
        return read_split(DataSettings(root=folder), "train")
    except InputError as error:
        return str(error)


def check(data: Annotations | str) -> None:
    """Check a refusal, or that annotations that were read are ones that training and evaluation can use."""
    if isinstance(data, str):
        assert "coco" in data  # the folder
        assert "\n" not in data.replace("a\nb", "")  # a name in the file, which the command line escapes
        return
    assert len(data) == len(data.image_ids) == len(data.sizes) > 0
    assert (data.sizes > 0).all()
    assert np.isfinite(data.boxes).all()
    assert np.isfinite(data.areas).all()
    assert set(data.labels.tolist()) <= set(range(len(data.categories)))
    assert data.offsets[-1] == len(data.boxes) == len(data.labels) == len(data.crowd) == len(data.usable)
    for index in range(len(data)):
        assert data.path(index).is_file()
        boxes, _ = data.training_objects(index)
        assert (boxes >= 0).all()


def test_the_file_itself_is_read(folder):
    data = read(folder, VALID)
    assert isinstance(data, Annotations), data
    assert (len(data), len(data.boxes), data.categories.ids) == (2, 2, (3, 90))


@pytest.mark.parametrize("path", places(VALID), ids=lambda path: ".".join(map(str, path)))
@settings(max_examples=8, derandomize=True, deadline=None)
@given(VALUES)
def test_any_value_in_any_place(folder, path, new):
    check(read(folder, changed(VALID, path, new)))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(places(VALID)), VALUES), min_size=2, max_size=4))
def test_several_values_at_once(folder, changes):
    content = VALID
    for path, new in changes:
        if path in places(content):
            content = changed(content, path, new)
    check(read(folder, content))
