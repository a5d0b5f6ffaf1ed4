"""Numbers of a data set are those counted by hand."""

from conditional_detr.config import DataSettings
from conditional_detr.data.inspection.statistics import ClassCount, Spread, statistics
from conditional_detr.data.reading import read_split
from tests.data.coco_data import change_annotations, picture, write_coco


def test_numbers_of_a_split(tmp_path):
    root = write_coco(
        tmp_path,
        {"train": {"a.png": [(1, [0, 0, 8, 2]), (1, [4, 4, 4, 4])], "b.png": [(7, [50, 0, 100, 100])], "c.png": []}},
        categories={1: "cat", 7: "dog", 9: "cow"},
        images={"b.png": picture(0, 150, 200)},
    )

    def mark(content):
        content["annotations"] += [
            {"id": 8, "image_id": 3, "category_id": 9, "bbox": [1, 1, 2, 2], "iscrowd": 1},
            {"id": 9, "image_id": 3, "category_id": 9, "bbox": [90, 1, 2, 2]},
        ]

    change_annotations(root, "train", mark)
    found = statistics(read_split(DataSettings(root=root), "train"))
    assert (found.images, found.empty, found.objects, found.crowds, found.unusable) == (3, 1, 3, 1, 1)
    assert (found.small, found.medium, found.large) == (2, 0, 1)
    assert found.portrait == 1 / 3
    assert (found.width.smallest, found.width.middle, found.width.largest) == (24, 24, 150)
    assert found.objects_per_image == Spread(0.0, 0.1, 1.0, 1.9, 2.0)
    assert found.side == Spread(4.0, 4.0, 4.0, 90.4, 100.0)
    assert found.relative_side is not None
    assert found.relative_side.largest == 0.5774  # 100 x 100 of 150 x 200
    assert found.box_aspect is not None
    assert (found.box_aspect.smallest, found.box_aspect.largest) == (1, 4)
    assert found.classes == (ClassCount(1, "cat", 2, 1), ClassCount(7, "dog", 1, 1), ClassCount(9, "cow", 0, 0))


def test_a_split_without_objects_has_numbers_too(tmp_path):
    root = write_coco(tmp_path, {"train": {"a.png": []}})
    found = statistics(read_split(DataSettings(root=root), "train"))
    assert (found.objects, found.side, found.small) == (0, None, 0)
    assert found.objects_per_image == Spread(0.0, 0.0, 0.0, 0.0, 0.0)
