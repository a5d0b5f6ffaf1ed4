"""Annotations in memory, independent of the layout they were read from."""

from pathlib import Path

import numpy as np
import pytest

from conditional_detr.data.annotations import Annotations
from conditional_detr.errors import DataError
from conditional_detr.evaluation.coco import CocoEvaluator
from conditional_detr.record import Categories


def annotations(image_ids=(3, 5, 9), ids=(1, 2), **changes) -> Annotations:
    """Return annotations of three images. The middle one is empty, and the objects are not sorted by image."""
    values = {
        "owners": np.array([2, 0, 2, 0]),
        "boxes": np.array([[1, 1, 4, 4], [0, 0, 8, 8], [5, 5, 20, 20], [2, 2, 0, 3]], dtype=float),
        "labels": np.array([1, 0, 0, 1]),
        "areas": np.array([9.0, 0, np.nan, -1]),
        "crowd": np.array([False, False, True, False]),
        **changes,
    }
    return Annotations.of(
        source=Path("x.json"),
        folder=Path("images"),
        categories=Categories(ids, ("a", "b")),
        image_ids=image_ids,
        file_names=["a.png", "b.png", "c.png"],
        sizes=np.array([[10, 10]] * 3, dtype=np.int32),
        **values,
    )


def test_objects_lie_in_the_order_of_their_images():
    data = annotations()
    assert data.offsets.tolist() == [0, 2, 2, 4]
    assert data.labels.tolist() == [0, 1, 1, 0]
    assert data.crowd.tolist() == [False, False, False, True]
    assert data.areas.tolist() == [64, 0, 9, 400]  # area of the box unless an area above 0 is given
    assert data.object_counts.tolist() == [1, 0, 1]
    boxes, labels = data.training_objects(2)
    assert (boxes.tolist(), labels.tolist()) == ([[1, 1, 5, 5]], [1])
    assert data.path(1) == Path("images/b.png")


def test_boxes_that_are_no_numbers_are_named():
    with pytest.raises(DataError, match=r"x\.json: a bbox of image 9 is NaN or infinite"):
        annotations(boxes=np.array([[1, 1, np.inf, 4]] + [[0, 0, 1, 1]] * 3, dtype=float))


@pytest.mark.parametrize("image_ids", [(3, 5, 9), (0, 2**53, 2**53 + 1), (-1, 2**63 - 1, -(2**63))])
@pytest.mark.parametrize("ids", [(1, 2), (0, 2**62)])
def test_any_ids_are_evaluated(image_ids, ids):
    """The ids in the metric can't distinguish 2**53 from 2**53 + 1, and 0 means "no match" there."""
    data = annotations(image_ids, ids)
    results = [
        {"image_id": image_ids[0], "category_id": ids[0], "bbox": [0, 0, 8, 8], "score": 0.9},
        {"image_id": image_ids[2], "category_id": ids[1], "bbox": [1, 1, 4, 4], "score": 0.8},
    ]
    metrics = CocoEvaluator(data).evaluate(results)
    assert metrics.per_class[ids[0]] == pytest.approx(1)
    assert metrics.per_class[ids[1]] == pytest.approx(51 / 101)  # one of two: the one without area can't be found
