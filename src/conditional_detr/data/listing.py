"""What the files of a data layout say, before it is compared with the images."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from conditional_detr.data.problems import Problems
from conditional_detr.record import Categories


@dataclass(kw_only=True)
class Listing:
    """Images and objects of a split as a layout's files list them.

    source: file or folder of the annotations, for messages. folder: root of ``file_names``, which exist. categories: all that
    the files list. image_ids: whole numbers of 64 bits, all different. sizes: int32 ``[images, 2]``, (height, width) in
    pixels; 0 where the files do not say.

    owners: int64 ``[objects]``, index of the image of each object, in any order. boxes: float64 ``[objects, 4]``, x, y, width,
    height. fractions: True if boxes are fractions of the image in 0..1 instead of pixels. labels: int64 ``[objects]``, indices
    of ``categories``. areas: float64 ``[objects]``, square pixels; 0 where the files do not say. crowd: bool ``[objects]``.
    problems: what is wrong with the files.
    """

    source: Path
    folder: Path
    categories: Categories
    image_ids: Sequence[int]
    file_names: list[str]
    sizes: np.ndarray
    owners: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    fractions: bool = False
    problems: Problems = field(default_factory=lambda: Problems("annotations"))

    def annotation(self, index: int) -> str:
        """Return the name of object ``index`` for messages."""
        box: list[Any] = [round(value, 3) for value in self.boxes[index].tolist()]
        return f"{box} in {self.file_names[int(self.owners[index])]}"

    def without_images(self, left_out: np.ndarray) -> "Listing":
        """Return the listing without some of the images and their objects. left_out: bool ``[images]``."""
        kept: list[int] = np.flatnonzero(~left_out).tolist()
        rows = ~left_out[self.owners]
        objects = {key: getattr(self, key)[rows] for key in ("boxes", "labels", "areas", "crowd")}
        return replace(
            self,
            image_ids=[self.image_ids[i] for i in kept],
            file_names=[self.file_names[i] for i in kept],
            sizes=self.sizes[kept],
            owners=(np.cumsum(~left_out) - 1)[self.owners[rows]],
            **objects,
        )


class ObjectArrays(TypedDict):
    """Arrays of the objects of a listing, in its form."""

    owners: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


class Objects:
    """Collector of the objects of a listing. Boxes without area are counted in ``problems`` and left out."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._owners, self._labels = array("q"), array("q")
        self._boxes, self._areas, self._crowd = array("d"), array("d"), array("b")

    def add(
        self, owner: int, label: int, box: Sequence[float], *, name: str, area: float = 0.0, crowd: bool = False
    ) -> None:
        """Add an object. owner: index of its image. box: x, y, width, height. name: of the object, for messages."""
        if box[2] <= 0 or box[3] <= 0:
            self._problems.add("without_area", name)
            return
        self._owners.append(owner)
        self._labels.append(label)
        self._boxes.extend(box)
        self._areas.append(area)
        self._crowd.append(crowd)

    def arrays(self) -> ObjectArrays:
        return {
            "owners": np.array(self._owners, dtype=np.int64),
            "labels": np.array(self._labels, dtype=np.int64),
            "boxes": np.array(self._boxes, dtype=np.float64).reshape(-1, 4),
            "areas": np.array(self._areas, dtype=np.float64),
            "crowd": np.array(self._crowd, dtype=bool),
        }
