"""Match detections to annotated objects at IoU 0.5, as COCO's metric does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from conditional_detr.data.annotations import Annotations
from conditional_detr.errors import DataError

FOUND = 0.5  # minimum IoU of a detection with the object that it finds


@dataclass(frozen=True)
class Found:
    """Detections in annotated images, in flat arrays, ordered by image and within an image by descending score.

    images: int64 ``[detections]``, index of the image. labels: int64, index of the category in the data. boxes: float64
    ``[detections, 4]``, x, y, width, height in pixels. scores: float64.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, results: Sequence[Mapping[str, Any]], data: Annotations) -> "Found":
        """Return results in COCO format, with image and category ids of the data."""
        index_of = {int(id_): index for index, id_ in enumerate(data.image_ids)}
        label_of = {id_: label for label, id_ in enumerate(data.categories.ids)}
        images = np.array([index_of[each["image_id"]] for each in results], dtype=np.int64)
        scores = np.array([each["score"] for each in results], dtype=np.float64)
        order = np.lexsort((-scores, images))
        return cls(
            images[order],
            np.array([label_of[each["category_id"]] for each in results], dtype=np.int64)[order],
            np.array([each["bbox"] for each in results], dtype=np.float64).reshape(-1, 4)[order],
            scores[order],
        )

    def __len__(self) -> int:
        return len(self.scores)

    def offsets(self, images: int) -> list[int]:
        """Return where the detections of each image begin, and at last their number."""
        return np.searchsorted(self.images, np.arange(images + 1)).tolist()


@dataclass(frozen=True)
class Matches:
    """Detections matched to the objects of their images. -1 stands for no object.

    Arrays ``[detections]``: object_of: row of the object that a detection finds, or -1. ignored: whether it lies in a crowd,
    where it counts neither as right nor as wrong. own_iou, own_object: highest IoU with an object of its category, found by
    another detection or not, and the row of that object. other_iou, other_object: the same for objects of other categories.

    Arrays ``[objects]``: nearest_iou, nearest: highest IoU with a detection of any category, and that detection. Crowds are no
    objects.
    """

    data: Annotations
    found: Found
    object_of: np.ndarray
    ignored: np.ndarray
    own_iou: np.ndarray
    own_object: np.ndarray
    other_iou: np.ndarray
    other_object: np.ndarray
    nearest_iou: np.ndarray
    nearest: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each detection finds an object, bool ``[detections]``."""
        return self.object_of >= 0

    @property
    def wrong(self) -> np.ndarray:
        """Whether each detection finds none and lies in no crowd, bool ``[detections]``."""
        return ~self.correct & ~self.ignored

    @property
    def objects(self) -> np.ndarray:
        """Number of objects of each category, int64 ``[categories]``."""
        return np.bincount(self.data.labels[~self.data.crowd], minlength=len(self.data.categories))


MOST_CATEGORIES = 5000  # the confusion matrix has the square of them


def check_categories(data: Annotations) -> None:
    """Raise ``DataError`` for data with more categories than a report can hold."""
    if len(data.categories) > MOST_CATEGORIES:
        raise DataError(
            f"{data.source} has {len(data.categories)} categories, and a report is for up to {MOST_CATEGORIES}; leave the report out, or "
            f"evaluate on fewer categories"
        )


def match(data: Annotations, found: Found) -> Matches:
    """Match detections to objects of their category, the most confident detection first.

    Each takes the free object with the highest IoU from 0.5 on. Without one, it is ignored if half of it lies in a crowd.
    """
    count, objects = len(found), len(data.labels)
    none, rows = np.full(count, -1, dtype=np.int64), np.full(objects, -1, dtype=np.int64)
    matches = Matches(
        data,
        found,
        object_of=none,
        ignored=np.zeros(count, dtype=bool),
        own_iou=np.zeros(count),
        own_object=none.copy(),
        other_iou=np.zeros(count),
        other_object=none.copy(),
        nearest_iou=np.zeros(objects),
        nearest=rows,
    )
    offsets = found.offsets(len(data))
    for image, (start, end) in enumerate(pairwise(offsets)):
        if start < end:
            _match_image(matches, slice(start, end), data.objects(image))
    return matches


def _match_image(matches: Matches, detections: slice, objects: slice) -> None:
    """Fill in the rows of one image."""
    data, found = matches.data, matches.found
    if objects.start == objects.stop:
        return
    crowd = data.crowd[objects]
    iou = overlaps(found.boxes[detections], data.boxes[objects], crowd)
    same = found.labels[detections][:, None] == data.labels[objects][None]
    _match_greedily(matches, iou, same, detections.start, objects.start, crowd)
    for mask, ious, rows in (
        (same, matches.own_iou, matches.own_object),
        (~same, matches.other_iou, matches.other_object),
    ):
        candidates = np.where(mask & ~crowd, iou, 0.0)
        best = candidates.argmax(1)
        ious[detections] = candidates.max(1)
        rows[detections] = np.where(ious[detections] > 0, objects.start + best, -1)
    plain = np.where(crowd, 0.0, iou)
    matches.nearest_iou[objects] = plain.max(0)
    matches.nearest[objects] = np.where(plain.max(0) > 0, detections.start + plain.argmax(0), -1)


def _match_greedily(
    matches: Matches, iou: np.ndarray, same: np.ndarray, detection: int, row: int, crowd: np.ndarray
) -> None:
    """Fill in what each detection finds. detection, row: indices of the first detection and object of the image."""
    candidates = same & (iou >= FOUND)
    free = ~crowd
    for i in np.flatnonzero(candidates.any(1)):
        possible = candidates[i] & free
        if possible.any():
            overlap = np.where(possible, iou[i], -1.0)
            best = len(overlap) - 1 - int(overlap[::-1].argmax())  # the last of equal ones, as in pycocotools
            matches.object_of[detection + i] = row + best
            free[best] = False
        elif (candidates[i] & crowd).any():
            matches.ignored[detection + i] = True


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes (x, y, width, height) with others, float64 ``[boxes, others]``.

    With a crowd, it is the fraction of the box that lies in it.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[None, :, :2] + others[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(2)
    area, other_area = boxes[:, 2] * boxes[:, 3], others[:, 2] * others[:, 3]
    whole = np.where(crowd, area[:, None], area[:, None] + other_area - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
