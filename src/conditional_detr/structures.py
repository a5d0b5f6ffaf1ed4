"""What flows between the parts: images and targets in, predictions and detections out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

if TYPE_CHECKING:
    from supervision import Detections as SupervisionDetections


@dataclass(frozen=True)
class Categories:
    """The map logit index <-> category id <-> name: logit ``i`` stands for ``ids[i]``, called ``names[i]``."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.ids)} category ids but {len(self.names)} names; give one name per id")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"category ids must differ from each other, got {list(self.ids)}")

    def __len__(self) -> int:
        return len(self.ids)

    def index_of(self, category_id: int) -> int:
        """The logit index of a category id. Raises ``ValueError`` for an unknown id."""
        if category_id not in self.ids:
            raise ValueError(f"category id {category_id} is not among {list(self.ids)}")
        return self.ids.index(category_id)

    def name_of(self, category_id: int) -> str:
        """The name of a category id. Raises ``ValueError`` for an unknown id."""
        return self.names[self.index_of(category_id)]


@dataclass(frozen=True)
class ImageBatch:
    """Images of one batch, padded on the right and at the bottom to a common size.

    pixels: RGB, ImageNet-normalised, 0 where padded.
    padding_mask: True where padded; None when nothing is padded.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    padding_mask: Bool[Tensor, "batch height width"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) with padding."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def to(self, device: torch.device) -> "ImageBatch":
        mask = None if self.padding_mask is None else self.padding_mask.to(device, non_blocking=True)
        return ImageBatch(self.pixels.to(device, non_blocking=True), mask)

    def pin_memory(self) -> "ImageBatch":
        mask = None if self.padding_mask is None else self.padding_mask.pin_memory()
        return ImageBatch(self.pixels.pin_memory(), mask)


@dataclass(frozen=True)
class Target:
    """What is in one image.

    labels: logit indices (not category ids).
    boxes: cx, cy, w, h in 0..1 of the unpadded image.
    image_id: id in the annotation file. image_name: for messages. image_size: (height, width) of the file, pixels.
    """

    labels: Int64[Tensor, " objects"]
    boxes: Float[Tensor, "objects 4"]
    image_id: int = 0
    image_name: str = ""
    image_size: tuple[int, int] = (0, 0)


class Predictions(NamedTuple):
    """What the model says, for every decoder layer; the last layer is the answer, the others feed auxiliary losses.

    logits: before the sigmoid. boxes: cx, cy, w, h in 0..1 of the unpadded image.
    """

    logits: Float[Tensor, "layers batch queries classes"]
    boxes: Float[Tensor, "layers batch queries 4"]

    def by_group(self, groups: int) -> "Predictions":
        """With every group of queries as an image of its own: ``[layers, batch * groups, queries / groups, ...]``."""
        layers, batch = self.boxes.shape[:2]
        return Predictions(*(part.reshape(layers, batch * groups, -1, part.shape[-1]) for part in self))


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, most confident first.

    boxes: x0, y0, x1, y1 in pixels of the image as given; not clipped to it.
    scores: in [0, 1]. labels: category ids of the data set the model was trained on. names: one per detection.
    """

    boxes: Float[Tensor, "objects 4"]
    scores: Float[Tensor, " objects"]
    labels: Int64[Tensor, " objects"]
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def above(self, threshold: float) -> "Detections":
        """Those whose score is at least ``threshold``."""
        count = int((self.scores >= threshold).sum())
        return Detections(self.boxes[:count], self.scores[:count], self.labels[:count], self.names[:count])

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO results: ``bbox`` is x, y, width, height in pixels."""
        corners: list[list[float]] = self.boxes.tolist()
        return [
            {
                "image_id": image_id,
                "category_id": label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            for (x0, y0, x1, y1), label, score in zip(corners, self.labels.tolist(), self.scores.tolist(), strict=True)
        ]

    def to_supervision(self) -> "SupervisionDetections":
        """The same as ``supervision.Detections``; ``class_id`` holds category ids, ``data["class_name"]`` names.

        Raises ``ImportError`` naming the pip command when supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs supervision: pip install 'conditional-detr[draw]'") from error
        import numpy as np

        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )
