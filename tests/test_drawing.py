"""Pictures show boxes where they are."""

import numpy as np
import torch
from PIL import Image

from conditional_detr.drawing import category_colours, draw_boxes, draw_detections, page_of_pairs, plot_curves
from conditional_detr.structures import Categories, Detections

CATEGORIES = Categories(tuple(range(80)), tuple(f"name {i}" for i in range(80)))


def test_box_is_drawn_where_it_is():
    picture = np.asarray(
        draw_boxes(Image.new("RGB", (100, 80)), torch.tensor([[20.0, 30.0, 60.0, 70.0]]), ["x"], [(255, 0, 0)])
    )
    assert picture[50, 20].tolist() == [255, 0, 0]
    assert picture[70, 40].tolist() == [255, 0, 0]
    assert picture[50, 40].tolist() == [0, 0, 0]
    assert picture[25, 22].tolist() != [0, 0, 0]  # the caption above it


def test_boxes_beyond_the_image_and_upside_down_do_not_matter():
    boxes = torch.tensor([[-50.0, -50.0, 500.0, 500.0], [9.0, 9.0, 3.0, 3.0]])
    found = Detections(boxes, torch.tensor([0.9, 0.1]), torch.tensor([3, 79]), ["name 3", "name 79"])
    assert draw_detections(Image.new("RGB", (20, 10)), found, CATEGORIES).size == (20, 10)
    assert draw_detections(Image.new("RGB", (1, 1)), found, CATEGORIES).size == (1, 1)


def test_every_category_has_its_colour():
    colours = category_colours(CATEGORIES)
    assert len(set(colours.values())) == 80


def test_page_holds_all_pairs():
    pairs = [(Image.new("RGB", (30, 20), (255, 0, 0)), Image.new("RGB", (30, 20), (0, 255, 0))) for _ in range(3)]
    page = np.asarray(page_of_pairs(pairs, ("a", "b"))).reshape(-1, 3)
    assert (page == (255, 0, 0)).all(1).sum() == (page == (0, 255, 0)).all(1).sum() == 3 * 30 * 20


def test_curves_are_written(tmp_path):
    plot_curves([(0.5, 3.0), (1.0, 2.0)], [(1.0, 0.2, 0.4)], tmp_path / "x.png")
    plot_curves([], [], tmp_path / "empty.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert min(picture.size) > 300
