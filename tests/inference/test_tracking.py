"""An object keeps its number from frame to frame."""

import pytest
import torch

from conditional_detr import Detections
from conditional_detr.inference.tracking import Tracker

NONE = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), [])


def found(*objects: tuple[float, float, float, int]) -> Detections:
    """objects: x, y, score, label, of boxes of 20 x 20 pixels."""
    boxes = torch.tensor([[x, y, x + 20, y + 20] for x, y, _, _ in objects])
    scores, labels = torch.tensor([each[2] for each in objects]), torch.tensor([each[3] for each in objects])
    return Detections(boxes, scores, labels, [str(each[3]) for each in objects])


def test_objects_keep_their_numbers_whatever_their_order():
    tracker = Tracker()
    assert tracker.update(found((0.0, 0.0, 0.9, 1), (100.0, 50.0, 0.8, 1)), NONE) == [1, 2]
    for i in range(1, 40):
        assert tracker.update(found((100.0 - 4 * i, 50.0, 0.9, 1), (5.0 * i, 0.0, 0.8, 1)), NONE) == [2, 1]


def test_crossing_objects_are_told_apart_by_their_speed():
    tracker = Tracker()
    for i in range(40):
        ids = tracker.update(found((4.0 * i, 0.0, 0.9, 1), (156.0 - 4 * i, 6.0, 0.9, 1)), NONE)
        assert ids == [1, 2]


def test_an_object_is_found_again_and_forgotten():
    tracker = Tracker(patience=10)
    for i in range(10):
        tracker.update(found((2.0 * i, 0.0, 0.9, 1)), NONE)
    for _ in range(6):
        assert tracker.update(NONE, NONE) == []
    assert tracker.update(found((2.0 * 16, 0.0, 0.9, 1)), NONE) == [1]
    for _ in range(11):
        tracker.update(NONE, NONE)
    assert tracker.update(found((2.0 * 28, 0.0, 0.9, 1)), NONE) == [2]


def test_unsure_detections_keep_a_track_but_start_none():
    for unsure, expected in ((True, [1]), (False, [2])):
        tracker = Tracker(patience=3)
        tracker.update(found((0.0, 0.0, 0.9, 1)), NONE)
        for i in range(1, 8):
            assert tracker.update(NONE, found((2.0 * i, 0.0, 0.2, 1)) if unsure else NONE) == []
        assert tracker.update(found((16.0, 0.0, 0.9, 1)), NONE) == expected
    tracker = Tracker()
    tracker.update(NONE, found((0.0, 0.0, 0.3, 1)))
    assert tracker.update(found((0.0, 0.0, 0.9, 1)), NONE) == [1]


def test_categories_have_tracks_of_their_own():
    tracker = Tracker()
    assert tracker.update(found((0.0, 0.0, 0.9, 1), (0.0, 0.0, 0.8, 2)), NONE) == [1, 2]
    assert tracker.update(found((0.0, 0.0, 0.9, 2), (0.0, 0.0, 0.8, 1)), NONE) == [2, 1]


@pytest.mark.parametrize("size", [0.0, -1.0])
def test_boxes_without_area(size):
    tracker = Tracker()
    flat = Detections(torch.tensor([[5.0, 5.0, 5.0 + size, 5.0]]), torch.tensor([0.9]), torch.tensor([1]), ["x"])
    for _ in range(3):
        ids = tracker.update(flat, NONE)
    assert len(ids) == 1
