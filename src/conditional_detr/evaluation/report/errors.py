"""Kinds of errors as in TIDE (Bolya et al., ECCV 2020), what each costs, and the confusion matrix."""

from dataclasses import dataclass

import numpy as np

from conditional_detr.evaluation.report.curves import interpolate
from conditional_detr.evaluation.report.matching import FOUND, Matches, overlaps

FAINT = 0.1  # IoU up to which a detection has nothing to do with an object
KINDS = ("class", "place", "both", "duplicate", "background", "missed")
CLASS, PLACE, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(KINDS))
NO_ERROR = -1


@dataclass(frozen=True)
class ErrorCount:
    """Errors of one kind. count: at the best thresholds; of_all: over detections of any score.

    cost: AP50 that is gained when only the errors of this kind, of any score, are corrected.
    """

    kind: str
    count: int
    of_all: int
    cost: float


def error_kinds(matches: Matches) -> np.ndarray:
    """Return the kind of error of each detection as an index into ``KINDS``, ``NO_ERROR`` where there is none.

    place: IoU of 0.1 to 0.5 with an object of its category. class: IoU from 0.5 with one of another category. duplicate: IoU
    from 0.5 with an object that a more confident detection finds. background: IoU up to 0.1 with all. both: what remains, with
    IoU of 0.1 to 0.5 with an object of another category. The first one that fits counts, in this order.
    """
    own, other = matches.own_iou, matches.other_iou
    conditions = [(own >= FAINT) & (own < FOUND), other >= FOUND, own >= FOUND, np.maximum(own, other) <= FAINT]
    kinds = np.select(conditions, [PLACE, CLASS, DUPLICATE, BACKGROUND], BOTH)
    return np.where(matches.wrong, kinds, NO_ERROR)


def nearly_found(matches: Matches, kinds: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the object that each detection would find without its error of class or place; -1 for all others.

    Of several such detections of an object the most confident one counts, of either kind. An object that is found has none.
    kept: bool ``[detections]``, the detections that are looked at.
    """
    targets = np.where(kinds == CLASS, matches.other_object, matches.own_object)
    taken = _found_objects(matches, kept)
    candidates = kept & np.isin(kinds, (CLASS, PLACE))
    candidates[candidates] = ~taken[targets[candidates]]
    order = np.flatnonzero(candidates)
    order = order[np.argsort(-matches.found.scores[order], kind="stable")]
    _, first = np.unique(targets[order], return_index=True)
    nearly = np.full(len(targets), -1, dtype=np.int64)
    nearly[order[first]] = targets[order[first]]
    return nearly


def missed_objects(matches: Matches, kinds: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the rows of the objects that no detection finds, or would find without its error of class or place."""
    covered = _found_objects(matches, kept) | matches.data.crowd
    nearly = nearly_found(matches, kinds, kept)
    covered[nearly[nearly >= 0]] = True
    return np.flatnonzero(~covered)


def _found_objects(matches: Matches, kept: np.ndarray) -> np.ndarray:
    taken = np.zeros(len(matches.data.labels), dtype=bool)
    taken[matches.object_of[kept & matches.correct]] = True
    return taken


def count_errors(matches: Matches, kinds: np.ndarray, kept: np.ndarray) -> list[ErrorCount]:
    """Count the errors of each kind, and measure what they cost. kept: the detections above the best thresholds."""
    everything = np.ones(len(kinds), dtype=bool)
    numbers = [
        np.append(np.bincount(kinds[chosen & (kinds >= 0)], minlength=MISSED)[:MISSED], missed)
        for chosen in (kept, everything)
        for missed in (len(missed_objects(matches, kinds, chosen)),)
    ]
    before = _mean_ap(matches, matches.found.labels, matches.correct, ~matches.ignored, matches.objects)
    costs = [_corrected(matches, kinds, kind) - before for kind in range(len(KINDS))]
    return [
        ErrorCount(name, int(count), int(of_all), cost)
        for name, count, of_all, cost in zip(KINDS, *numbers, costs, strict=True)
    ]


def _corrected(matches: Matches, kinds: np.ndarray, kind: int) -> float:
    """Return AP50 with all errors of a kind corrected.

    Detections with an error of class or place find their object, unless another does; all other ones are removed. Missed
    objects count no more.
    """
    labels, correct, counted = matches.found.labels.copy(), matches.correct.copy(), ~matches.ignored
    objects = matches.objects
    if kind == MISSED:
        missed = missed_objects(matches, kinds, np.ones(len(kinds), dtype=bool))
        objects = objects - np.bincount(matches.data.labels[missed], minlength=len(objects))
    else:
        nearly = nearly_found(matches, kinds, np.ones(len(kinds), dtype=bool))
        mended = (kinds == kind) & (nearly >= 0)
        labels[mended] = matches.data.labels[nearly[mended]]
        correct |= mended
        counted &= (kinds != kind) | mended
    return _mean_ap(matches, labels, correct, counted, objects)


def _mean_ap(
    matches: Matches, labels: np.ndarray, correct: np.ndarray, counted: np.ndarray, objects: np.ndarray
) -> float:
    """Return AP50, the mean over the categories with objects; 0 without any."""
    order = np.argsort(-matches.found.scores, kind="stable")
    order = order[counted[order]]
    values: list[float] = []
    for label in np.flatnonzero(objects):
        right = correct[order[labels[order] == label]]
        values.append(float(interpolate(np.cumsum(right), np.cumsum(~right), int(objects[label])).mean()))
    return float(np.mean(values)) if values else 0.0


def confusion(matches: Matches, kept: np.ndarray) -> np.ndarray:
    """Return how often an object of a category (row) is detected as one (column), int64 ``[categories + 1, categories + 1]``.

    The last column counts objects that are not detected, the last row detections of background. Detections that find no object
    of their category are paired with objects that are not found, by descending IoU from 0.5 on. kept: the detections that count.
    """
    data, found = matches.data, matches.found
    categories = len(data.categories)
    right = kept & matches.correct
    counts = np.zeros((categories + 1, categories + 1), dtype=np.int64)
    np.add.at(counts, (data.labels[matches.object_of[right]], found.labels[right]), 1)
    open_objects = ~_found_objects(matches, kept) & ~data.crowd
    open_detections = kept & matches.wrong
    offsets = found.offsets(len(data))
    for image in np.unique(found.images[open_detections & (matches.other_iou >= FOUND)]).tolist():
        rows, start, end = data.objects(image), offsets[image], offsets[image + 1]
        objects = rows.start + np.flatnonzero(open_objects[rows])
        detections = start + np.flatnonzero(open_detections[start:end])
        iou = overlaps(found.boxes[detections], data.boxes[objects], data.crowd[objects])
        while iou.size and iou.max() >= FOUND:
            i, j = np.unravel_index(iou.argmax(), iou.shape)
            counts[data.labels[objects[j]], found.labels[detections[i]]] += 1
            open_objects[objects[j]] = open_detections[detections[i]] = False
            iou[i], iou[:, j] = -1, -1
    counts[:, -1] += np.bincount(data.labels[open_objects], minlength=categories + 1)
    counts[-1] += np.bincount(found.labels[open_detections], minlength=categories + 1)
    return counts
