"""Everything that a report says about the detections of a model."""

from dataclasses import dataclass

import numpy as np

from conditional_detr.evaluation.coco import CocoMetrics, match_categories
from conditional_detr.evaluation.report.curves import (
    Calibration,
    Curve,
    Operation,
    calibration,
    class_curves,
    overall_curve,
)
from conditional_detr.evaluation.report.errors import ErrorCount, confusion, count_errors, error_kinds
from conditional_detr.evaluation.report.findings import DoubtfulLabel, WorstImage, doubtful_labels, worst_images
from conditional_detr.evaluation.report.matching import Matches, check_categories
from conditional_detr.record import Categories, Thresholds


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What is right and wrong in the detections of a model. Objects are those of the annotations without crowds.

    overall, classes: curves of all categories together and of each. at_best: what each category comes to at its threshold in
    ``kept_from``. thresholds: those with the best F1, by category of the data; None when nothing is found. kept_from: the
    thresholds that errors are counted at, ``[categories]``. confusion: ``[categories + 1, categories + 1]``, annotated category
    (row) and detected one (column), background last.
    """

    matches: Matches
    metrics: CocoMetrics
    overall: Curve
    classes: list[Curve]
    thresholds: Thresholds | None
    at_best: list[Operation]
    errors: list[ErrorCount]
    confusion: np.ndarray
    calibration: Calibration
    worst: list[WorstImage]
    doubtful: list[DoubtfulLabel]

    @property
    def objects(self) -> int:
        """Number of annotated objects. Without any, nothing but calibration and the detections themselves is known."""
        return self.overall.objects


def best_thresholds(overall: Curve, classes: list[Curve]) -> Thresholds | None:
    """Return the thresholds with the best F1 at IoU 0.5, by category of the data; None when no detection is correct."""
    if overall.best is None:
        return None
    per_class = tuple(None if each.best is None else each.best.threshold for each in classes)
    return Thresholds(overall.best.threshold, per_class)


def thresholds_from(matches: Matches) -> Thresholds | None:
    """Return ``best_thresholds`` of matched detections."""
    classes = class_curves(matches)
    return best_thresholds(overall_curve(matches, classes), classes)


def thresholds_for(model: Categories, measured: Thresholds | None, matches: Matches) -> Thresholds | None:
    """Return thresholds by logit index of a model. Categories that the data lacks have none."""
    if measured is None:
        return None
    data_id_of, data = match_categories(model, matches.data), matches.data.categories
    rows = (data.index_of(data_id_of[id_]) if id_ in data_id_of else None for id_ in model.ids)
    return Thresholds(measured.overall, tuple(None if row is None else measured.per_class[row] for row in rows))


def analyze(matches: Matches, metrics: CocoMetrics) -> Analysis:
    """Analyze matched detections. metrics: of the same detections. Raises ``DataError`` for more categories than a report holds."""
    check_categories(matches.data)
    classes = class_curves(matches)
    overall = overall_curve(matches, classes)
    thresholds = best_thresholds(overall, classes)
    kept_from = np.full(len(classes), 0.5) if thresholds is None else np.array(thresholds.of_rows())
    kept = matches.found.scores >= kept_from[matches.found.labels]
    kinds = error_kinds(matches)
    return Analysis(
        matches=matches,
        metrics=metrics,
        overall=overall,
        classes=classes,
        thresholds=thresholds,
        at_best=[_at(matches, kept, label, float(kept_from[label])) for label in range(len(classes))],
        errors=count_errors(matches, kinds, kept),
        confusion=confusion(matches, kept),
        calibration=calibration(matches),
        worst=worst_images(matches, kinds, kept),
        doubtful=doubtful_labels(matches, kinds, kept),
    )


def _at(matches: Matches, kept: np.ndarray, label: int, threshold: float) -> Operation:
    chosen = kept & (matches.found.labels == label)
    correct = int((chosen & matches.correct).sum())
    return Operation(threshold, correct, int((chosen & matches.wrong).sum()), int(matches.objects[label]) - correct)
