"""Pages and plots of a data set."""

import numpy as np
import pytest
from PIL import Image

from conditional_detr.config import DataSettings
from conditional_detr.data.inspection.pictures import CELL, annotated, choose_images, plot_statistics
from conditional_detr.data.reading import read_split
from conditional_detr.drawing import color_of, page_of_pictures
from conditional_detr.errors import DataError
from tests.data.coco_data import change_annotations, write_coco


@pytest.fixture
def data(tmp_path):
    images = {f"{i}.png": [(1 + i % 3, [2, 2, 8, 8])] for i in range(9)}
    root = write_coco(tmp_path, {"train": images}, categories={1: "cat", 2: "dog", 3: "cow", 4: "owl"})
    change_annotations(root, "train", lambda content: content["annotations"][1].update(iscrowd=1))
    return read_split(DataSettings(root=root), "train")


def test_the_choice_is_random_repeatable_and_of_a_category(data):
    assert choose_images(data, 20, 0) == list(range(9))
    assert choose_images(data, 4, 1) == choose_images(data, 4, 1)
    assert len({tuple(choose_images(data, 4, seed)) for seed in range(5)}) > 1
    assert choose_images(data, 9, 0, "dog") == [1, 4, 7]  # the first of them is a crowd
    with pytest.raises(DataError, match="no category 'bird'; it has 'cat', 'dog', 'cow', 'owl'"):
        choose_images(data, 9, 0, "bird")
    with pytest.raises(DataError, match=r"no image .* shows category 'owl'"):
        choose_images(data, 9, 0, "owl")


def test_boxes_are_drawn_where_they_are_in_their_color(data):
    picture = annotated(data, 0)
    assert max(picture.size) == CELL
    scale = CELL / 24
    assert picture.getpixel((round(2 * scale), round(6 * scale))) == color_of(1)
    assert picture.getpixel((round(10 * scale), round(6 * scale))) == color_of(1)
    assert picture.getpixel((round(6 * scale), round(6 * scale))) != color_of(1)


def test_crowds_and_unusable_boxes_are_marked(data, monkeypatch):
    captions = []
    monkeypatch.setattr(
        "conditional_detr.data.inspection.pictures.draw_boxes",
        lambda image, boxes, names, colors: captions.extend(names) or image,
    )
    data.usable[2] = False
    for index in range(3):
        annotated(data, index)
    assert captions == ["cat", "dog (crowd)", "cow (unusable)"]


def test_any_file_name_can_be_a_caption(tmp_path):
    root = write_coco(tmp_path, {"train": {"猫\n\x1b[31m.png": [], f"{'long' * 50}.png": []}})
    data = read_split(DataSettings(root=root), "train")
    assert page_of_pictures([(annotated(data, i), data.file_names[i]) for i in range(2)], CELL).width > CELL


def test_a_page_holds_all_images(data):
    page = page_of_pictures([(annotated(data, i), data.file_names[i]) for i in range(5)], CELL)
    assert page.width == 3 * CELL + 4 * 8
    assert page.height > 2 * CELL * 16 / 24


def test_plots_are_written_with_and_without_objects(tmp_path):
    names = {i: f"$_{i}^{{ name that is long enough to be cut" for i in range(1, 40)} | {2: "猫 🐕", 3: "\x1b[31m\n"}
    splits = {"train": {"a.png": [(i, [2, 2, 8, 8]) for i in (1, 2, 3)]}, "val": {"b.png": []}}
    root = write_coco(tmp_path / "data", splits, categories=names)
    data = {split: read_split(DataSettings(root=root), split) for split in ("train", "val")}
    plot_statistics(data, tmp_path / "plots.png")
    with Image.open(tmp_path / "plots.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    plot_statistics({"val": data["val"]}, tmp_path / "empty.png")
