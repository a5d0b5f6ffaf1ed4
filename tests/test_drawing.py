"""Boxes, pages and curves are drawn as asked."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import conditional_detr
from conditional_detr.drawing import color_of, draw_boxes, page, plot_curves, write_picture
from conditional_detr.structures import Detections
from tests.conftest import no_room_for_files_over


def test_box_is_drawn_where_it_is():
    picture = np.asarray(
        draw_boxes(Image.new("RGB", (100, 80)), torch.tensor([[20.0, 30.0, 60.0, 70.0]]), ["x"], [(255, 0, 0)])
    )
    assert picture[50, 20].tolist() == [255, 0, 0]
    assert picture[70, 40].tolist() == [255, 0, 0]
    assert picture[50, 40].tolist() == [0, 0, 0]
    assert picture[25, 22].tolist() != [0, 0, 0]  # the caption above the box


def test_boxes_beyond_the_image_and_upside_down_do_not_matter():
    boxes = torch.tensor([[-50.0, -50.0, 500.0, 500.0], [9.0, 9.0, 3.0, 3.0]])
    found = Detections(boxes, torch.tensor([0.9, 0.1]), torch.tensor([3, 79]), ["name 3", "name 79"])
    assert found.draw(Image.new("RGB", (20, 10))).size == (20, 10)
    assert found.draw(Image.new("RGB", (1, 1))).size == (1, 1)


def test_categories_have_colors_of_their_own():
    assert len({color_of(id_) for id_ in range(91)}) == 91
    assert all(0 <= part <= 255 for id_ in (-5, 2**62) for part in color_of(id_))


def test_page_holds_all_pictures():
    """Pictures of several sizes, in rows of several lengths, do not cover each other."""
    sizes, colors = [(30, 20), (10, 20), (50, 5)], [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    red, green, blue = (Image.new("RGB", size, color) for size, color in zip(sizes, colors, strict=True))
    sheet = np.asarray(page([[red, green], [blue, red], [green]], ("a", "b"))).reshape(-1, 3)
    found = [int((sheet == color).all(1).sum()) for color in colors]
    assert found == [2 * 30 * 20, 2 * 10 * 20, 50 * 5]


def test_curves_are_written(tmp_path):
    plot_curves([(0.5, 3.0), (1.0, 2.0)], [(1.0, 0.2, 0.4)], tmp_path / "x.png")
    plot_curves([], [], tmp_path / "empty.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert min(picture.size) > 300


def test_every_legend_has_its_place():
    """Matplotlib's search for the best place takes seconds where there are many points, and warns of it."""
    package = Path(conditional_detr.__file__).parent
    calls = [
        (file.name, node)
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "legend"
    ]
    assert len(calls) >= 4
    assert not [file for file, call in calls if "loc" not in {keyword.arg for keyword in call.keywords}]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".pdf"])
def test_pictures_are_whole_or_not_there(suffix, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8))
    file = tmp_path / f"x{suffix}"
    write_picture(picture, file)
    before = file.read_bytes()
    for path in (file, tmp_path / f"new{suffix}"):
        with no_room_for_files_over(len(before) // 2), pytest.raises(OSError, match="too large"):
            write_picture(picture, path)
    assert os.listdir(tmp_path) == [file.name]
    assert file.read_bytes() == before
