"""Precision, recall and F1 over confidence, AP50, the best thresholds, and calibration."""

from dataclasses import dataclass

import numpy as np

from conditional_detr.evaluation.report.matching import Matches

RECALLS = np.linspace(0, 1, 101)  # at which COCO interpolates precision
CONFIDENCES = np.linspace(0, 1, 101)  # at which curves are given
BINS = 10  # of confidence, for calibration
CALIBRATED_FROM = (
    1  # bin from which the calibration error is measured: nearly all detections of DETR are in the one below
)


@dataclass(frozen=True)
class Operation:
    """What a score threshold leads to. correct, wrong: numbers of detections that are kept. missed: number of objects."""

    threshold: float
    correct: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        return self.correct / max(self.correct + self.wrong, 1)

    @property
    def recall(self) -> float:
        return self.correct / max(self.correct + self.missed, 1)

    @property
    def f1(self) -> float:
        return 2 * self.correct / max(2 * self.correct + self.wrong + self.missed, 1)


@dataclass(frozen=True)
class Curve:
    """Curves of a category, or of all together, at IoU 0.5.

    objects: number of objects. ap50: AP at IoU 0.5; NaN without objects. precision, recall, f1: float64 ``[101]``, at
    ``CONFIDENCES``; precision is NaN where nothing is that confident, recall and f1 without objects. interpolated: float64
    ``[101]``, precision at ``RECALLS`` as COCO interpolates it. best: at the threshold with the highest F1; None when no
    detection is correct.
    """

    objects: int
    ap50: float
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    interpolated: np.ndarray
    best: Operation | None


@dataclass(frozen=True)
class Bin:
    """Detections with scores in ``low`` to ``high``. confidence: their mean score; precision: the fraction that is correct."""

    low: float
    high: float
    count: int
    confidence: float
    precision: float


@dataclass(frozen=True)
class Calibration:
    """How far scores are from precision. error: mean distance over the bins from 0.1 on, weighted by count; NaN without any."""

    bins: tuple[Bin, ...]
    error: float


def curve(scores: np.ndarray, correct: np.ndarray, objects: int) -> Curve:
    """Return the curves of detections. scores, correct: ``[detections]``, without those that lie in a crowd."""
    order = np.argsort(-scores, kind="stable")
    scores, correct = scores[order], correct[order]
    right, wrong = np.cumsum(correct), np.cumsum(~correct)
    kept = np.searchsorted(-scores, -CONFIDENCES, side="right")  # how many detections have at least that score
    right_at, all_at = np.append(0, right)[kept], kept
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = right_at / all_at
        recall = right_at / objects if objects else np.full(len(kept), np.nan)
        f1 = 2 * right_at / (all_at + objects) if objects else np.full(len(kept), np.nan)
    interpolated = interpolate(right, wrong, objects)
    return Curve(
        objects, float(interpolated.mean()), precision, recall, f1, interpolated, _best(scores, right, wrong, objects)
    )


def interpolate(right: np.ndarray, wrong: np.ndarray, objects: int) -> np.ndarray:
    """Return precision at ``RECALLS``, the highest at that recall or a higher one; NaN without objects.

    right, wrong: ``[detections]``, numbers of correct and wrong ones up to each, in descending order of score.
    """
    if not objects:
        return np.full(len(RECALLS), np.nan)
    precision = np.maximum.accumulate((right / np.maximum(right + wrong, 1))[::-1])[::-1]
    return np.append(precision, 0.0)[np.searchsorted(right / objects, RECALLS, side="left")]


def _best(scores: np.ndarray, right: np.ndarray, wrong: np.ndarray, objects: int) -> Operation | None:
    """Return the threshold with the highest F1, the highest of equal ones. Scores are in descending order."""
    if not objects or not len(scores) or right[-1] == 0:
        return None
    f1 = 2 * right / (right + wrong + objects)
    ends = np.append(scores[1:] < scores[:-1], True)  # detections of equal scores are kept together
    last = int(np.where(ends, f1, -1).argmax())
    # Halfway to the next score, so that rounding elsewhere changes nothing.
    below = float(scores[last + 1]) if last + 1 < len(scores) else 0.0
    threshold = (float(scores[last]) + below) / 2
    return Operation(threshold, int(right[last]), int(wrong[last]), objects - int(right[last]))


def class_curves(matches: Matches) -> list[Curve]:
    """Return the curves of each category."""
    counted, found = ~matches.ignored, matches.found
    return [
        curve(found.scores[chosen], matches.correct[chosen], int(objects))
        for label, objects in enumerate(matches.objects)
        for chosen in (counted & (found.labels == label),)
    ]


def overall_curve(matches: Matches, classes: list[Curve]) -> Curve:
    """Return the curves of the detections of all categories together. AP50 and its curve are means over the categories."""
    counted = ~matches.ignored
    pooled = curve(matches.found.scores[counted], matches.correct[counted], int(matches.objects.sum()))
    measured = [each.interpolated for each in classes if each.objects]
    interpolated = np.mean(measured, axis=0) if measured else pooled.interpolated
    return Curve(
        pooled.objects,
        float(interpolated.mean()),
        pooled.precision,
        pooled.recall,
        pooled.f1,
        interpolated,
        pooled.best,
    )


def calibration(matches: Matches) -> Calibration:
    """Compare scores with the fraction of correct detections."""
    counted = ~matches.ignored
    scores, correct = matches.found.scores[counted], matches.correct[counted]
    of_bin = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(of_bin, minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(of_bin, weights=scores, minlength=BINS) / count
        precision = np.bincount(of_bin, weights=correct, minlength=BINS) / count
    weights = count[CALIBRATED_FROM:] / max(count[CALIBRATED_FROM:].sum(), 1)
    distance = np.abs(confidence - precision)[CALIBRATED_FROM:]
    error = float(np.nansum(weights * distance)) if weights.any() else float("nan")
    edges = np.linspace(0, 1, BINS + 1).tolist()
    bins = zip(edges[:-1], edges[1:], count.tolist(), confidence.tolist(), precision.tolist(), strict=True)
    return Calibration(tuple(Bin(*each) for each in bins), error)
