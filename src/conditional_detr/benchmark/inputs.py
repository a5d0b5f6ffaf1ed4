"""Generated images and objects for benchmarks, the same in every call."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from conditional_detr.structures import ImageBatch, Target

OBJECTS = 7  # objects per image; COCO has 7.3 on average


class Inputs(NamedTuple):
    """A batch of images of one size, without padding. height, width: size of the network input in pixels."""

    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.height}x{self.width}"

    def pictures(self) -> list[Image.Image]:
        """Return smooth RGB images of 0.6 times the size, the ratio of 480x640 to 800x1066."""
        rng = np.random.default_rng(0)
        size = (round(self.width * 0.6), round(self.height * 0.6))
        coarse = (max(size[1] // 8, 1), max(size[0] // 8, 1), 3)
        return [Image.fromarray(rng.integers(0, 256, coarse, dtype=np.uint8)).resize(size) for _ in range(self.batch)]

    def images(self) -> ImageBatch:
        generator = torch.Generator().manual_seed(0)
        return ImageBatch(torch.randn(self.batch, 3, self.height, self.width, generator=generator))

    def targets(self, classes: int, objects: int = OBJECTS) -> list[Target]:
        generator = torch.Generator().manual_seed(1)
        return [
            Target(
                labels=torch.randint(0, classes, (objects,), generator=generator),
                boxes=torch.rand(objects, 4, generator=generator) * 0.3 + 0.2,
            )
            for _ in range(self.batch)
        ]


def difference(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> list[float]:
    """Return the largest absolute difference of each pair of arrays."""
    return [float(np.abs(x.astype(float) - y).max()) for x, y in zip(a, b, strict=True)]
