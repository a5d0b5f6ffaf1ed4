"""Suggested settings suit the data, and the command line takes them."""

import pytest

from conditional_detr.config import DataSettings, load_settings, preset_names
from conditional_detr.data.inspection.suggestions import suggest
from conditional_detr.data.reading import read_split
from tests.conftest import SHARED, needs_shared
from tests.data.coco_data import picture, write_coco

DATA = SHARED / "data"


def suggested(**settings):
    return {each.key: each for each in suggest(read_split(DataSettings(**settings), "train"))}


def values(**settings):
    return {key: each.value for key, each in suggested(**settings).items()}


def test_shapes_keep_their_size(shapes_root):
    found = values(root=shapes_root)
    assert found["data.eval_short_side"] == found["data.eval_max_size"] == found["data.max_size"] == 96
    assert found["data.short_sides"] == (64, 96)
    assert found["model.queries"] == 20
    assert found["data.group_by_aspect_ratio"] is False


@needs_shared("data/bccd")
def test_sizes_of_real_data():
    cells = values(root=DATA / "bccd" / "voc")
    assert cells["data.short_sides"] == (288, 320, 352, 384, 416, 448, 480)
    assert (cells["data.eval_max_size"], cells["model.queries"]) == (640, 90)
    vehicles = values(root=DATA / "vehicles" / "yolo")
    assert (vehicles["data.eval_short_side"], vehicles["data.eval_max_size"]) == (416, 416)
    published = DataSettings()
    coco = values(root=DATA / "coco_mini")  # small objects: enlarged as published
    assert coco["data.short_sides"] == published.short_sides
    assert coco["data.eval_short_side"] == published.eval_short_side
    crops = (coco["data.crop_short_sides"], coco["data.crop_min"], coco["data.crop_max"])
    assert crops == (published.crop_short_sides, published.crop_min, published.crop_max)
    assert coco["data.group_by_aspect_ratio"] is True


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_takes_them(shapes_root, preset):
    found = suggested(root=shapes_root)
    settings = load_settings(preset, [each.override for each in found.values()])
    for key, each in found.items():
        section, name = key.split(".")
        assert getattr(getattr(settings, section), name) == each.value
        assert each.reason


@pytest.mark.parametrize(
    ("size", "box", "sides"),
    [
        ((2000, 1500), [0, 0, 900, 900], (800, 1088)),  # large photographs are scaled down
        ((2000, 40), [0, 0, 30, 30], (32, 1333)),  # a strip
        ((3, 2), [0, 0, 2, 2], (32, 64)),  # never less than one cell
        ((300, 300), [0, 0, 4, 4], (608, 608)),  # tiny objects: at most twice the size
    ],
)
def test_extreme_sizes_give_valid_settings(tmp_path, size, box, sides):
    root = write_coco(tmp_path, {"train": {"a.png": [(1, box)]}}, images={"a.png": picture(0, *size)})
    found = suggested(root=root)
    load_settings("conditional-detr_tiny_shapes", [each.override for each in found.values()])
    assert (found["data.eval_short_side"].value, found["data.eval_max_size"].value) == sides


def test_without_objects_no_queries_are_suggested(tmp_path):
    assert "model.queries" not in values(root=write_coco(tmp_path, {"train": {"a.png": []}}))
