"""Fingerprints are those of the data, not of its place."""

import shutil

import pytest

from conditional_detr.config import DataSettings
from conditional_detr.data.fingerprint import changes, fingerprint
from conditional_detr.data.reading import read_split
from conditional_detr.data.shapes import write_shapes


def both_splits(settings):
    return read_split(settings, "train"), read_split(settings, "val")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fingerprint") / "shapes"
    write_shapes(root, {"train": 4, "val": 2}, seed=1)
    return root


def test_a_copy_has_the_same(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    first, second = (fingerprint(*both_splits(DataSettings(root=each))) for each in (root, tmp_path / "copy"))
    assert changes(first, second) == []


def test_what_changed_is_counted(root, tmp_path):
    before = fingerprint(*both_splits(DataSettings(root=root)))
    copy = shutil.copytree(root, tmp_path / "copy")
    picture = copy / "val2017" / "000001.png"
    picture.write_bytes(picture.read_bytes() + b"x")
    file = copy / "annotations" / "instances_train2017.json"
    file.write_text(
        file.read_text().replace('"category_id": 1', '"category_id": 2').replace("000001.png", "renamed.png", 1)
    )
    (copy / "train2017" / "000001.png").rename(copy / "train2017" / "renamed.png")
    found = changes(before, fingerprint(*both_splits(DataSettings(root=copy))))
    assert found[0] == "1 of 4 training images have another name, size or place in the list"
    assert found[1].endswith("training images have other boxes, categories or crowds")
    assert found[2:] == ["1 of 2 validation images have another image file"]


def test_a_missing_image_and_missing_validation_data_are_changes(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    train, val = both_splits(DataSettings(root=copy))
    before = fingerprint(train, val)
    (copy / "train2017" / "000003.png").unlink()
    assert changes(before, fingerprint(train, None)) == [
        "1 of 4 training images have another image file",
        "0 instead of 2 validation images",
    ]
