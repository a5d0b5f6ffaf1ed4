"""The worst images with their faults, and annotations that may be wrong."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from conditional_detr.evaluation.report.errors import BACKGROUND, DUPLICATE, KINDS, MISSED, PLACE, missed_objects
from conditional_detr.evaluation.report.matching import FOUND, Matches

WORST = 12  # number of images that are shown
LISTED = 100  # number of doubtful labels of each kind that are listed

Box = tuple[float, float, float, float]
Doubt = Literal["not annotated", "other category", "found by nothing"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An error in an image.

    kind: one of ``KINDS``. box: x, y, width, height in pixels of the detection, or of the object that is missed. detected,
    score: category and score of the detection; None for a missed object. annotated: category of the object that is nearly
    found or missed; None on background.
    """

    kind: str
    box: Box
    detected: str | None
    score: float | None
    annotated: str | None


@dataclass(frozen=True)
class WorstImage:
    """An image with many faults. index: of the image in the data. objects, correct: numbers of objects and of those found."""

    index: int
    file: str
    objects: int
    correct: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True, kw_only=True)
class DoubtfulLabel:
    """What may be a fault in the annotations.

    kind: "not annotated": a confident detection where nothing is annotated; "other category": an object where a confident
    detection sees another category; "found by nothing": an object that no detection of any score and category reaches. box: x,
    y, width, height in pixels of the detection in the first case, of the annotation in the others. iou: of both.
    """

    kind: Doubt
    index: int
    file: str
    box: Box
    annotated: str | None
    detected: str | None
    score: float | None
    iou: float


def worst_images(matches: Matches, kinds: np.ndarray, kept: np.ndarray) -> list[WorstImage]:
    """Return the images with the most faults, most first. kept: the detections above the best thresholds."""
    data, found = matches.data, matches.found
    wrong = kept & matches.wrong
    missed = missed_objects(matches, kinds, kept)
    owners = data.owners
    faults = np.bincount(found.images[wrong], minlength=len(data)) + np.bincount(owners[missed], minlength=len(data))
    confidence = np.bincount(found.images[wrong], weights=found.scores[wrong], minlength=len(data))
    order = np.lexsort((-confidence, -faults))[:WORST]
    return [
        _worst_image(matches, kinds, kept, missed[owners[missed] == index], int(index))
        for index in order
        if faults[index]
    ]


def _worst_image(matches: Matches, kinds: np.ndarray, kept: np.ndarray, missed: np.ndarray, index: int) -> WorstImage:
    data, found, names = matches.data, matches.found, matches.data.categories.names
    inside = kept & (found.images == index)
    faults: list[Fault] = []
    for i in np.flatnonzero(inside & matches.wrong).tolist():
        own = kinds[i] in (PLACE, DUPLICATE)
        row = -1 if kinds[i] == BACKGROUND else int((matches.own_object if own else matches.other_object)[i])
        faults.append(
            Fault(
                kind=KINDS[kinds[i]],
                box=_box(found.boxes[i]),
                detected=names[found.labels[i]],
                score=float(found.scores[i]),
                annotated=None if row < 0 else names[data.labels[row]],
            )
        )
    for row in missed.tolist():
        box, name = _box(data.boxes[row]), names[data.labels[row]]
        faults.append(Fault(kind=KINDS[MISSED], box=box, detected=None, score=None, annotated=name))
    objects = int((~data.crowd[data.objects(index)]).sum())
    return WorstImage(index, str(data.path(index)), objects, int((inside & matches.correct).sum()), tuple(faults))


def doubtful_labels(matches: Matches, kinds: np.ndarray, kept: np.ndarray) -> list[DoubtfulLabel]:
    """Return what may be faults in the annotations, the most doubtful first within each kind.

    Confident is a detection whose score is at least the median of the correct detections of its category that are kept.
    """
    confident = kept & (matches.found.scores >= _usual_scores(matches, kept)[matches.found.labels])
    return [
        *_not_annotated(matches, kinds, confident),
        *_other_category(matches, kept, confident),
        *_reached_by_none(matches),
    ]


def _usual_scores(matches: Matches, kept: np.ndarray) -> np.ndarray:
    """Return the median score of the correct detections of each category; above all scores where there are none."""
    right = kept & matches.correct
    return np.array(
        [
            np.median(scores) if len(scores) else 2.0
            for label in range(len(matches.data.categories))
            for scores in (matches.found.scores[right & (matches.found.labels == label)],)
        ]
    )


def _not_annotated(matches: Matches, kinds: np.ndarray, confident: np.ndarray) -> list[DoubtfulLabel]:
    found, names = matches.found, matches.data.categories.names
    rows = np.flatnonzero(confident & (kinds == BACKGROUND))
    rows = rows[np.argsort(-found.scores[rows], kind="stable")][:LISTED]
    return [
        DoubtfulLabel(
            kind="not annotated",
            index=int(found.images[i]),
            file=str(matches.data.path(int(found.images[i]))),
            box=_box(found.boxes[i]),
            annotated=None,
            detected=names[found.labels[i]],
            score=float(found.scores[i]),
            iou=float(max(matches.own_iou[i], matches.other_iou[i])),
        )
        for i in rows.tolist()
    ]


def _other_category(matches: Matches, kept: np.ndarray, confident: np.ndarray) -> list[DoubtfulLabel]:
    """Return objects that are not found in their category, but confidently in another one."""
    data, found, names = matches.data, matches.found, matches.data.categories.names
    taken = set(matches.object_of[kept & matches.correct].tolist())
    rows = np.flatnonzero(confident & matches.wrong & (matches.other_iou >= FOUND))
    best: dict[int, int] = {}  # row of the object -> its most confident detection
    for i in rows[np.argsort(-found.scores[rows], kind="stable")].tolist():
        if (row := int(matches.other_object[i])) not in taken:
            best.setdefault(row, i)
    owners = data.owners
    return [
        DoubtfulLabel(
            kind="other category",
            index=int(owners[row]),
            file=str(data.path(int(owners[row]))),
            box=_box(data.boxes[row]),
            annotated=names[data.labels[row]],
            detected=names[found.labels[i]],
            score=float(found.scores[i]),
            iou=float(matches.other_iou[i]),
        )
        for row, i in list(best.items())[:LISTED]
    ]


def _reached_by_none(matches: Matches) -> list[DoubtfulLabel]:
    data, found, names = matches.data, matches.found, matches.data.categories.names
    rows = np.flatnonzero((matches.nearest_iou < FOUND) & ~data.crowd)
    rows = rows[np.argsort(matches.nearest_iou[rows], kind="stable")][:LISTED]
    owners = data.owners
    nearest = matches.nearest
    return [
        DoubtfulLabel(
            kind="found by nothing",
            index=int(owners[row]),
            file=str(data.path(int(owners[row]))),
            box=_box(data.boxes[row]),
            annotated=names[data.labels[row]],
            detected=None if nearest[row] < 0 else names[found.labels[nearest[row]]],
            score=None if nearest[row] < 0 else float(found.scores[nearest[row]]),
            iou=float(matches.nearest_iou[row]),
        )
        for row in rows.tolist()
    ]


def _box(box: np.ndarray) -> Box:
    x, y, width, height = (round(float(value), 2) for value in box)
    return x, y, width, height
