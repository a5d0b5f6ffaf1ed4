"""Annotations in memory, the common form of all data layouts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from conditional_detr.data.problems import Problem
from conditional_detr.errors import DataError
from conditional_detr.record import Categories


class Names(Sequence[str]):
    """Sequence of strings stored in two arrays, so that loading processes share its memory.

    Reading a list of ``str`` changes reference counts, which copies its memory pages into every forked process.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        part = self._bytes[self._ends[position] : self._ends[position + 1]]
        return part.tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Annotations:
    """Annotated images in flat arrays, so that loading processes share their memory. Create it with ``Annotations.of``.

    source: file or folder of the annotations, for messages. folder: root of ``file_names``. image_ids: int64 ``[images]``.
    sizes: int32 ``[images, 2]``, (height, width) in pixels.

    Rows ``offsets[i]:offsets[i + 1]`` of the following arrays are the objects of image ``i``. boxes: float64
    ``[objects, 4]``, x, y, width, height in pixels, not clipped. labels: int32, logit indices. areas: float64, square
    pixels. crowd: bool. usable: bool, the objects for training, which are not crowds and have an area inside the image.

    problems: what is wrong or unusual in the data, to be told to the user.
    """

    source: Path
    folder: Path
    categories: Categories
    image_ids: np.ndarray
    file_names: Names
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    usable: np.ndarray
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        source: Path,
        folder: Path,
        categories: Categories,
        image_ids: Sequence[int] | np.ndarray,
        file_names: Sequence[str],
        sizes: np.ndarray,
        owners: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        areas: np.ndarray,
        crowd: np.ndarray,
        problems: tuple[Problem, ...] = (),
    ) -> "Annotations":
        """Return annotations with objects sorted by image. owners: int64 ``[objects]``, index of the image of each object.

        The other arrays are those of the class, with objects in any order. An area that is not above 0 is replaced by the
        area of the box. Raises ``DataError`` when a box is NaN or infinite.
        """
        if not np.isfinite(boxes).all():
            image = int(owners[~np.isfinite(boxes).all(1)][0])
            raise DataError(f"{source}: a bbox of image {image_ids[image]} is NaN or infinite; correct it")
        order = np.argsort(owners, kind="stable")
        boxes = boxes[order]
        with np.errstate(invalid="ignore"):
            areas = np.where(areas[order] > 0, areas[order], boxes[:, 2] * boxes[:, 3])
        corners = _corners(boxes, sizes[owners[order]])
        crowd = crowd[order]
        return cls(
            source=source,
            folder=folder,
            categories=categories,
            image_ids=np.asarray(image_ids, dtype=np.int64),
            file_names=Names(file_names),
            sizes=sizes,
            offsets=np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(file_names)))]).astype(np.int64),
            boxes=boxes,
            labels=labels[order].astype(np.int32),
            areas=areas,
            crowd=crowd,
            usable=~crowd & (corners[:, 2:] > corners[:, :2]).all(1),
            problems=problems,
        )

    def __len__(self) -> int:
        return len(self.file_names)

    def path(self, index: int) -> Path:
        """Return the path of image ``index``."""
        return self.folder / self.file_names[index]

    def objects(self, index: int) -> slice:
        """Return the rows of the objects of image ``index``."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def training_objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes and labels of the objects of image ``index`` that are usable for training.

        boxes: float32 ``[objects, 4]``, x0, y0, x1, y1 in pixels, clipped to the image. labels: int64 ``[objects]``, logit
        indices.
        """
        rows = self.objects(index)
        usable = self.usable[rows]
        return _corners(self.boxes[rows][usable], self.sizes[index]), self.labels[rows][usable].astype(np.int64)

    @property
    def owners(self) -> np.ndarray:
        """Index of the image of each object, int64 ``[objects]``."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Annotations":
        """Return the annotations of some of the images, in the given order."""
        lengths = np.diff(self.offsets)[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.repeat(self.offsets[indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        objects = {key: getattr(self, key)[rows] for key in ("boxes", "labels", "areas", "crowd", "usable")}
        return replace(
            self,
            image_ids=self.image_ids[indices],
            file_names=Names(self.file_names[int(i)] for i in indices),
            sizes=self.sizes[indices],
            offsets=offsets,
            **objects,
        )

    @property
    def object_counts(self) -> np.ndarray:
        """Number of objects in each image that are usable for training, int64 ``[images]``."""
        return np.bincount(self.owners[self.usable], minlength=len(self))


def _corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Convert x, y, width, height to x0, y0, x1, y1, clipped to images of (height, width), in float32."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    limits = np.broadcast_to(sizes[..., [1, 0, 1, 0]].astype(np.float32), corners.shape)
    return np.minimum(np.maximum(corners, 0), limits)
