"""Data types that the modules exchange: images and targets in, predictions and detections out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import torch
from jaxtyping import Bool, Float, Int64
from PIL.Image import Image
from torch import Tensor

from conditional_detr.drawing import color_of, draw_boxes

if TYPE_CHECKING:
    from pandas import DataFrame
    from supervision import Detections as SupervisionDetections


@dataclass(frozen=True)
class ImageBatch:
    """Batch of images, padded on the right and at the bottom to a common size.

    pixels: RGB, ImageNet-normalized, 0 where padded.
    padding_mask: True where padded; None when nothing is padded.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    padding_mask: Bool[Tensor, "batch height width"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, with padding."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def to(self, device: torch.device) -> "ImageBatch":
        mask = None if self.padding_mask is None else self.padding_mask.to(device, non_blocking=True)
        return ImageBatch(self.pixels.to(device, non_blocking=True), mask)

    def pin_memory(self) -> "ImageBatch":
        mask = None if self.padding_mask is None else self.padding_mask.pin_memory()
        return ImageBatch(self.pixels.pin_memory(), mask)


@dataclass(frozen=True)
class Target:
    """Ground truth of one image.

    labels: logit indices (not category ids).
    boxes: cx, cy, w, h in 0..1 of the unpadded image.
    image_id: id in the annotation file. image_name: name for messages. image_size: (height, width) of the file in pixels.
    """

    labels: Int64[Tensor, " objects"]
    boxes: Float[Tensor, "objects 4"]
    image_id: int = 0
    image_name: str = ""
    image_size: tuple[int, int] = (0, 0)


class Predictions(NamedTuple):
    """Output of the model for every decoder layer. The last layer is the result; the others are for auxiliary losses.

    logits: before sigmoid or softmax. boxes: cx, cy, w, h in 0..1 of the unpadded image.
    """

    logits: Float[Tensor, "layers batch queries classes"]
    boxes: Float[Tensor, "layers batch queries 4"]

    @property
    def last(self) -> "Outputs":
        """Output of the last layer."""
        return Outputs(self.logits[-1], self.boxes[-1])

    def by_group(self, groups: int) -> "Predictions":
        """Return predictions with each query group as a separate image: ``[layers, batch * groups, queries / groups, ...]``."""
        layers, batch = self.boxes.shape[:2]
        return Predictions(*(part.reshape(layers, batch * groups, -1, part.shape[-1]) for part in self))


class Outputs(NamedTuple):
    """Output of the last decoder layer, as a runtime computes it.

    logits: before sigmoid or softmax. boxes: as in ``Predictions``.
    """

    logits: Float[Tensor, "batch queries logits"]
    boxes: Float[Tensor, "batch queries 4"]


class Detection(NamedTuple):
    """One detected object. box: x0, y0, x1, y1 in pixels. score: in [0, 1]. label: category id. name: category name."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str


@dataclass(frozen=True, repr=False, eq=False)
class Detections:
    """Objects detected in one image, most confident first. Iterating yields ``Detection`` tuples; indexing selects.

    boxes: x0, y0, x1, y1 in pixels of the original image; not clipped to it.
    scores: in [0, 1]. labels: category ids of the dataset the model was trained on. names: category name per detection.
    """

    boxes: Float[Tensor, "objects 4"]
    scores: Float[Tensor, " objects"]
    labels: Int64[Tensor, " objects"]
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Detection]:
        corners = cast("list[tuple[float, float, float, float]]", [tuple(box) for box in self.boxes.tolist()])
        yield from map(Detection, corners, self.scores.tolist(), self.labels.tolist(), self.names)

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | Tensor) -> "Detections": ...
    def __getitem__(self, index: int | slice | Sequence[int] | Sequence[bool] | Tensor) -> "Detection | Detections":
        """Return a ``Detection`` for an integer, and ``Detections`` for a slice, indices or a boolean mask.

        Raises ``IndexError`` for an index out of range.
        """
        if isinstance(index, int):
            chosen = self[[range(len(self))[index]]]
            return next(iter(chosen))
        if not isinstance(index, slice):
            index = torch.as_tensor(index) if len(index) else torch.zeros(0, dtype=torch.int64)
        rows = torch.arange(len(self))[index]
        return Detections(
            self.boxes[rows], self.scores[rows], self.labels[rows], [self.names[row] for row in rows.tolist()]
        )

    def __repr__(self) -> str:
        objects = [f"{each.name} {each.score:.2f} [{', '.join(f'{v:.0f}' for v in each.box)}]" for each in self[:5]]
        more = f", and {len(self) - 5} more" if len(self) > 5 else ""
        return f"Detections({len(self)}: {', '.join(objects)}{more})" if len(self) else "Detections(none)"

    def above(self, threshold: float | Mapping[int, float]) -> "Detections":
        """Return the detections whose score is at least ``threshold``, in the same order.

        threshold: one for all, or one for each category id.
        """
        return self[self.reaches(threshold)]

    def reaches(self, threshold: float | Mapping[int, float]) -> Bool[Tensor, " objects"]:
        """Tell for each detection whether its score is at least ``threshold``, as in ``above``."""
        if isinstance(threshold, Mapping):
            least = torch.tensor([threshold[label] for label in self.labels.tolist()], dtype=torch.float64)
            return self.scores.double() >= least
        return self.scores >= threshold

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return COCO results: ``bbox`` is x, y, width, height in pixels."""
        return [
            {
                "image_id": image_id,
                "category_id": label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            for (x0, y0, x1, y1), score, label, _ in self
        ]

    def to_json(self) -> str:
        """Return a JSON list of objects with box (x0, y0, x1, y1 in pixels), score, label (category id) and name."""
        return json.dumps([each._asdict() for each in self])

    def to_pandas(self) -> "DataFrame":
        """Return a ``pandas.DataFrame`` with columns x0, y0, x1, y1, score, label, name.

        Raises ``ImportError`` naming the pip command when pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        columns = ["x0", "y0", "x1", "y1", "score", "label", "name"]
        return DataFrame([(*box, *rest) for box, *rest in self], columns=columns)

    def draw(self, image: Image) -> Image:
        """Return a copy of an RGB image with the boxes drawn, each with name and score."""
        captions = [f"{each.name} {each.score:.2f}" for each in self]
        return draw_boxes(image, self.boxes, captions, [color_of(each.label) for each in self])

    def to_supervision(self) -> "SupervisionDetections":
        """Return ``supervision.Detections``; ``class_id`` holds category ids, ``data["class_name"]`` names.

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
