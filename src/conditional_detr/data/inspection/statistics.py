"""Numbers that describe a data set: images, objects and their sizes."""

from dataclasses import dataclass

import numpy as np

from conditional_detr.data.annotations import Annotations

SMALL, LARGE = 32.0**2, 96.0**2  # areas that bound COCO's medium objects, in square pixels


@dataclass(frozen=True)
class Spread:
    """Distribution of a quantity: minimum, 5th percentile, median, 95th percentile and maximum."""

    smallest: float
    low: float
    middle: float
    high: float
    largest: float


@dataclass(frozen=True)
class ClassCount:
    """A category with its numbers of objects and of images that show it. Crowds are not counted."""

    id: int
    name: str
    objects: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Numbers of a split. Lengths are in pixels. Objects are those usable for training; without any, their spreads are None.

    empty: images without objects. crowds, unusable: annotations that are no objects, the latter without area in their image.
    portrait: fraction of images that are higher than wide. aspect: width / height. side: square root of width x height of a
    box; relative_side: of its fraction of the image. small, medium, large: number of objects by COCO's areas.
    """

    images: int
    empty: int
    objects: int
    crowds: int
    unusable: int
    width: Spread
    height: Spread
    aspect: Spread
    portrait: float
    objects_per_image: Spread
    side: Spread | None
    relative_side: Spread | None
    box_aspect: Spread | None
    small: int
    medium: int
    large: int
    classes: tuple[ClassCount, ...]


def spread(values: np.ndarray) -> Spread:
    """Return the distribution of at least one value."""
    return Spread(*(round(float(each), 4) for each in np.percentile(values, [0, 5, 50, 95, 100])))


def statistics(data: Annotations) -> Statistics:
    """Return the numbers of a split."""
    usable, owners = data.usable, data.owners[data.usable]
    height, width = data.sizes.T.astype(np.float64)
    sides, areas = data.boxes[usable, 2:], data.areas[usable]
    some = bool(usable.any())
    small, large = int((areas < SMALL).sum()), int((areas >= LARGE).sum())
    return Statistics(
        images=len(data),
        empty=int((data.object_counts == 0).sum()),
        objects=len(owners),
        crowds=int(data.crowd.sum()),
        unusable=int((~usable & ~data.crowd).sum()),
        width=spread(width),
        height=spread(height),
        aspect=spread(width / height),
        portrait=float((height > width).mean()),
        objects_per_image=spread(data.object_counts),
        side=spread(box_sides(data)) if some else None,
        relative_side=spread(box_sides(data) / np.sqrt((height * width)[owners])) if some else None,
        box_aspect=spread(sides[:, 0] / sides[:, 1]) if some else None,
        small=small,
        medium=len(areas) - small - large,
        large=large,
        classes=_classes(data, owners, data.labels[usable]),
    )


def box_sides(data: Annotations) -> np.ndarray:
    """Return the square root of width x height of the boxes of objects usable for training, float64 ``[objects]``, in pixels."""
    sides = data.boxes[data.usable, 2:]
    return np.sqrt(sides[:, 0] * sides[:, 1])


def _classes(data: Annotations, owners: np.ndarray, labels: np.ndarray) -> tuple[ClassCount, ...]:
    objects = np.bincount(labels, minlength=len(data.categories))
    shown = np.unique(np.stack([owners, labels], axis=1), axis=0)[:, 1] if len(labels) else labels
    images = np.bincount(shown, minlength=len(data.categories))
    named = zip(data.categories.ids, data.categories.names, objects.tolist(), images.tolist(), strict=True)
    return tuple(ClassCount(*each) for each in named)
