"""Matching, curves, thresholds and calibration: small cases by hand, AP50 as in COCO's evaluation."""

import json

import numpy as np
import pytest

from conditional_detr.data.reading import read_coco
from conditional_detr.evaluation.coco import CocoEvaluator
from conditional_detr.evaluation.report.analysis import thresholds_for
from conditional_detr.evaluation.report.curves import class_curves, curve, overall_curve
from conditional_detr.record import Categories, Thresholds
from tests.conftest import needs_shared
from tests.evaluation.report.cases import CAT, DOG, analyzed, annotations, matched, results
from tests.evaluation.test_coco import CROWDED, random_results


@needs_shared("data/coco_mini")
@pytest.mark.parametrize("seed", range(3))
def test_ap50_is_that_of_coco_with_crowds_and_ties(seed):
    found = random_results(json.loads(CROWDED.read_text()), seed)
    data = read_coco(CROWDED, [CROWDED.parents[1] / "images"])
    expected = CocoEvaluator(data).evaluate(found)
    classes = class_curves(matched(data, found))
    assert overall_curve(matched(data, found), classes).ap50 == pytest.approx(expected.values["AP50"], abs=1e-9)
    assert 0.05 < expected.values["AP50"] < 0.95


def test_an_object_is_found_once_and_by_the_most_confident():
    data = annotations([(CAT, 0, 0, 10, 10), (CAT, 0, 0, 10, 10)])
    found = results(
        [(CAT, 0.5, 0, 0, 10, 10), (CAT, 0.9, 0, 0, 10, 6), (CAT, 0.7, 0, 0, 10, 10), (DOG, 0.8, 0, 0, 10, 10)]
    )
    matches = matched(data, found)
    assert matches.found.scores.tolist() == [0.9, 0.8, 0.7, 0.5]
    assert matches.object_of.tolist() == [1, -1, 0, -1]
    assert matches.own_iou.tolist() == [0.6, 0, 1, 1]
    assert matches.other_iou.tolist() == [0, 1, 0, 0]
    assert matches.nearest_iou.tolist() == [1, 1]


def test_detections_in_crowds_count_neither_way():
    data = annotations([(CAT, 0, 0, 50, 50), (CAT, 60, 60, 10, 10)], crowds=[0])
    matches = matched(data, results([(CAT, 0.9, 0, 0, 10, 10), (CAT, 0.8, 20, 20, 10, 10), (DOG, 0.7, 0, 0, 10, 10)]))
    assert matches.ignored.tolist() == [True, True, False]
    assert matches.objects.tolist() == [1, 0]
    assert class_curves(matches)[0].best is None


def test_curves_by_hand():
    """Four objects; right at 0.9 and 0.6, wrong at 0.8 and twice at 0.3, right at 0.3."""
    scores = np.array([0.3, 0.9, 0.3, 0.8, 0.6, 0.3])
    correct = np.array([True, True, False, False, True, False])
    found = curve(scores, correct, 4)
    at = dict(zip((95, 90, 85, 80, 60, 30, 0), ((0, 0), (1, 1), (1, 1), (1, 2), (2, 3), (3, 6), (3, 6)), strict=True))
    for percent, (right, kept) in at.items():
        assert found.recall[percent] == right / 4
        assert found.f1[percent] == 2 * right / (kept + 4)
        assert np.isnan(found.precision[percent]) if not kept else found.precision[percent] == right / kept
    best = found.best
    assert best is not None
    assert (best.correct, best.wrong, best.missed) == (3, 3, 1)  # F1 is 6/10, and 4/7 from 0.6 on
    assert best.threshold == pytest.approx(0.15)  # halfway to the next lower score
    assert (best.precision, best.recall, best.f1) == (0.5, 0.75, 0.6)
    # Precision is 1 up to a recall of 1/4 and 3/4 up to 3/4, which it is at the fourth detection. There is no more recall.
    assert found.interpolated[[0, 25, 26, 50, 75, 76]].tolist() == [1, 1, 0.75, 0.75, 0.75, 0]


def test_equal_scores_are_kept_or_dropped_together():
    found = curve(np.array([0.5, 0.5, 0.2]), np.array([True, False, True]), 2)
    assert found.best is not None
    assert (found.best.correct, found.best.wrong) == (2, 1)
    alone = curve(np.array([0.5, 0.5]), np.array([True, False]), 1)
    assert alone.best is not None
    assert (alone.best.correct, alone.best.wrong) == (1, 1)


def test_thresholds_are_the_best_of_each_category():
    data = annotations([(CAT, 0, 0, 10, 10), (DOG, 50, 50, 10, 10)])
    found = results(
        [(CAT, 0.4, 0, 0, 10, 10), (CAT, 0.2, 80, 80, 10, 10), (DOG, 0.9, 50, 50, 10, 10), (DOG, 0.6, 0, 0, 9, 9)]
    )
    analysis = analyzed(data, found)
    assert analysis.thresholds is not None
    assert analysis.thresholds.per_class == pytest.approx((0.3, 0.75))
    assert analysis.overall.best is not None
    assert (analysis.overall.best.correct, analysis.overall.best.wrong) == (2, 1)


def test_thresholds_go_to_the_rows_of_the_model():
    data = annotations([(CAT, 0, 0, 10, 10), (DOG, 50, 50, 10, 10)])
    matches = matched(data, results([(CAT, 0.4, 0, 0, 10, 10)]))
    model = Categories((1, 2, 9), ("cow", "Cat", "dog"))  # cat has another id, cow is not in the data
    thresholds = thresholds_for(model, Thresholds(0.3, (0.1, 0.2)), matches)
    assert thresholds == Thresholds(0.3, (None, 0.1, 0.2))
    assert thresholds_for(model, None, matches) is None


def test_nothing_found_and_nothing_annotated():
    empty = annotations([], [])
    for data, found in (
        (empty, []),
        (empty, results([(CAT, 0.5, 0, 0, 9, 9)])),
        (annotations([(CAT, 0, 0, 9, 9)]), []),
        (annotations([(CAT, 0, 0, 9, 9)]), results([(DOG, 0.9, 50, 50, 9, 9)])),
    ):
        analysis = analyzed(data, found)
        assert analysis.thresholds is None
        assert analysis.objects == len(data.labels)


def test_calibration():
    data = annotations([(CAT, 0, 0, 10, 10), (CAT, 20, 0, 10, 10), (CAT, 40, 0, 10, 10)])
    found = results(
        [
            (CAT, 0.9, 0, 0, 10, 10),
            (CAT, 0.96, 20, 0, 10, 10),
            (CAT, 0.55, 40, 0, 10, 10),
            (CAT, 0.51, 80, 80, 9, 9),
            (CAT, 0.01, 80, 80, 9, 9),
        ]
    )
    calibration = analyzed(data, found).calibration
    bins = {round(each.low, 1): each for each in calibration.bins if each.count}
    assert {low: (each.count, each.precision) for low, each in bins.items()} == {
        0.9: (2, 1),
        0.5: (2, 0.5),
        0.0: (1, 0),
    }
    assert bins[0.9].confidence == pytest.approx(0.93)
    assert calibration.error == pytest.approx((2 * 0.07 + 2 * 0.03) / 4)  # without the lowest bin
