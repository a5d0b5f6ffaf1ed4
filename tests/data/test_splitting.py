"""Dividing a data set by category, with copies of an image in one part."""

import shutil

import numpy as np
import pytest

from conditional_detr.config import DataSettings
from conditional_detr.data.reading import read_split
from conditional_detr.data.splitting import divided
from conditional_detr.errors import DataError
from tests.conftest import SHARED, needs_shared
from tests.data.coco_data import write_coco


def read(root):
    return read_split(DataSettings(root=root), "train")


def of_categories(root, shown):
    """A data set whose images show these categories, given as text such as "aab"."""
    letters = sorted(set("".join(shown)))
    ids = {letter: id_ for id_, letter in enumerate(letters, 1)}
    images = {f"{i:03}.png": [(ids[letter], [1, 1, 5, 5]) for letter in text] for i, text in enumerate(shown)}
    return read(write_coco(root, {"train": images}, categories={id_: letter for letter, id_ in ids.items()}))


def images_with(part):
    """Number of images that show each category."""
    return [len(np.unique(part.owners[part.labels == label])) for label in range(len(part.categories))]


def test_every_category_is_divided_in_proportion(tmp_path):
    data = of_categories(tmp_path, ["a"] * 40 + ["ab"] * 20 + ["b"] * 20 + ["bc"] * 10 + [""] * 10)
    parts = divided(data, [0.7, 0.2, 0.1], seed=0)
    assert sum(map(len, parts)) == len(data)
    assert sorted(name for part in parts for name in part.file_names) == list(data.file_names)
    wanted = np.outer([0.7, 0.2, 0.1], images_with(data))
    assert np.abs(np.array([images_with(part) for part in parts]) - wanted).max() <= 1.5
    assert np.abs(np.array([len(part) for part in parts]) - [70, 20, 10]).max() <= 3
    empty = [int((part.object_counts == 0).sum()) for part in parts]
    assert empty == [7, 2, 1]
    for part in parts:
        assert (np.diff(part.image_ids) > 0).all()  # the order stays


def test_rare_categories_are_in_every_part_and_the_rarest_in_training(tmp_path):
    data = of_categories(tmp_path, ["a"] * 30 + ["ab", "ab", "ac", "ad", "ad", "ad"])
    for seed in range(4):
        train, val = divided(data, [0.9, 0.1], seed)
        assert all(images_with(train))
        assert images_with(val)[1] >= 1
        assert images_with(val)[2] == 0
        assert images_with(val)[3] >= 1


def test_copies_stay_together(tmp_path):
    data = of_categories(tmp_path, ["a"] * 20)
    for index in (3, 7, 11):
        shutil.copy(data.path(0), data.path(index))
    augmented = [tmp_path / "train" / f"cat_jpg.rf.{letter * 32}.png" for letter in "xyz"]
    for i, file in enumerate(augmented):
        data.path(12 + i).rename(file)
    root = tmp_path / "again"
    images = {file.name: [(1, [1, 1, 5, 5])] for file in sorted((tmp_path / "train").iterdir())}
    write_coco(root, {"train": images})
    shutil.rmtree(root / "train")
    shutil.copytree(tmp_path / "train", root / "train")
    for seed in range(4):
        parts = divided(read(root), [0.5, 0.5], seed)
        names = [set(part.file_names) for part in parts]
        for group in ({"000.png", "003.png", "007.png", "011.png"}, {file.name for file in augmented}):
            assert group <= names[0] or group <= names[1]


def test_the_seed_and_the_names_alone_decide(tmp_path):
    data = of_categories(tmp_path / "a", ["ab", "a", "b", "c"] * 8)
    other = of_categories(tmp_path / "b", ["ab", "a", "b", "c"] * 8)
    backwards = other.subset(np.arange(len(other))[::-1])
    names = [sorted(part.file_names) for part in divided(data, [0.8, 0.2], 0)]
    assert [sorted(part.file_names) for part in divided(backwards, [0.8, 0.2], 0)] == names
    assert len({tuple(divided(data, [0.8, 0.2], seed)[1].file_names) for seed in range(5)}) > 1


def test_no_part_is_empty(tmp_path):
    data = of_categories(tmp_path, ["a", "b", "c"])  # each would go to training
    assert [len(part) for part in divided(data, [0.8, 0.1, 0.1], 0)] == [1, 1, 1]
    with pytest.raises(DataError, match="into 4 parts: it has 3 images"):
        divided(data, [0.25] * 4, 0)


@needs_shared("data/vehicles")
def test_real_data_keeps_its_proportions():
    data = read(SHARED / "data" / "vehicles" / "yolo")
    val = divided(data, [0.8, 0.2], 0)[1]
    assert len(val) == pytest.approx(0.2 * len(data), abs=4)
    assert np.allclose(images_with(val), 0.2 * np.array(images_with(data)), atol=1.5)
