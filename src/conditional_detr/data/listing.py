"""What the files of a data layout say, before it is compared with the images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
