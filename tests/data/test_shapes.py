"""The generated data set "shapes" has the documented properties."""

import json

import numpy as np
import pytest
from PIL import Image

from conditional_detr.data.shapes import MAX_OVERLAP, MIN_CONTRAST, SIDE, _overlap, draw_shapes, write_shapes
from conditional_detr.errors import InputError


def test_recipe():
    drawn = [draw_shapes(np.random.default_rng([0, i])) for i in range(300)]
    counts = [len(each.boxes) for each in drawn]
    assert (min(counts), max(counts)) == (1, 4)
    assert np.mean(counts) == pytest.approx(2.4, abs=0.15)
    boxes = np.array([box for each in drawn for box in each.boxes])
    assert boxes[:, 2:].min() >= 0.19 * SIDE
    assert boxes[:, 2:].max() <= 0.51 * SIDE
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= SIDE
    for each in drawn:
        for i, a in enumerate(each.boxes):
            assert all(_overlap(a, b) <= MAX_OVERLAP for b in each.boxes[:i])
    assert {category for each in drawn for category in each.category_ids} == {1, 2, 3}


def test_a_shape_fills_its_box_and_contrasts():
    """In images with one shape, the pixels of its color span exactly the annotated box."""
    tested = 0
    for i in range(60):
        each = draw_shapes(np.random.default_rng([1, i]))
        if len(each.boxes) != 1:
            continue
        x, y, width, height = each.boxes[0]
        pixels = np.asarray(each.image).astype(int)
        color = pixels[y + height - 2, x + width // 2]
        rows, columns = np.nonzero((pixels == color).all(-1))
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + width, y + height)
        background = np.median(pixels.reshape(-1, 3), axis=0)
        assert np.abs(color - background).max() > MIN_CONTRAST - 30
        tested += 1
    assert tested > 5


def test_same_arguments_same_files(tmp_path):
    write_shapes(tmp_path / "a", {"train": 3, "val": 2}, seed=1)
    write_shapes(tmp_path / "b", {"train": 5, "val": 2}, seed=1)
    write_shapes(tmp_path / "c", {"train": 3, "val": 2}, seed=2)
    images = [np.asarray(Image.open(tmp_path / name / "train2017" / "000002.png")) for name in "abc"]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    read = [json.loads((tmp_path / n / "annotations" / "instances_val2017.json").read_text()) for n in "ab"]
    assert read[0] == read[1]


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not an empty folder"):
        write_shapes(tmp_path, {"train": 1}, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
