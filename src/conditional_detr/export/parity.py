"""Compare an exported graph with the network that it was made from."""

from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.loading import usable_images
from conditional_detr.data.scenes import draw_scene
from conditional_detr.errors import CheckpointError
from conditional_detr.exports import ExportRecord
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.postprocess import class_scores
from conditional_detr.inference.runtimes import Runtime
from conditional_detr.structures import ImageBatch

SIDES = (640, 500, 380)  # pixels of the longer side of the generated images, where no data is given
FLOAT32, HALF = 1e-3, 5e-2  # tolerance of scores, and of boxes relative to the image


class Difference(NamedTuple):
    """Largest absolute differences in one batch. size: (height, width) in pixels. boxes: in 0..1."""

    images: int
    size: tuple[int, int]
    padded: bool
    logits: float
    scores: float
    boxes: float

    @property
    def what(self) -> str:
        return f"{self.images} x {self.size[0]}x{self.size[1]}{', padded' if self.padded else ''}"


def pictures(data: Annotations | None, on_error: Literal["stop", "skip"] = "stop") -> list[Image.Image]:
    """Return the first images of the data, or without data generated ones of several sizes and proportions.

    on_error: what to do about an image that can't be used; skip: take the next.
    """
    if data is not None:
        return list(islice(usable_images(data, range(len(data)), on_error), len(SIDES)))
    return [draw_scene(0, index, side).image for index, side in enumerate(SIDES)]


@torch.inference_mode()
def differences(
    reference: Runtime, runtime: Runtime, export: ExportRecord, images: Sequence[Image.Image]
) -> list[Difference]:
    """Compare two runtimes on each image alone, and on all of them in one padded batch."""
    pipeline = Pipeline(export.model, runtime)
    prepared = [pipeline.prepare(image) for image in images]
    batches = [pipeline.batch([each]) for each in prepared]
    if len(prepared) > 1:
        batches.append(pipeline.batch(prepared))
    return [_difference(reference, runtime, batch, export.model.architecture.softmax) for batch in batches]


def _difference(reference: Runtime, runtime: Runtime, batch: ImageBatch, softmax: bool) -> Difference:
    theirs, ours = (run(batch.pixels, batch.padding_mask) for run in (reference, runtime))

    def most(a: Tensor, b: Tensor) -> float:
        return float((a.cpu() - b.cpu()).abs().max())

    scores = most(class_scores(theirs.logits.cpu(), softmax), class_scores(ours.logits.cpu(), softmax))
    return Difference(
        len(batch.pixels),
        batch.size,
        batch.padding_mask is not None,
        most(theirs.logits, ours.logits),
        scores,
        most(theirs.boxes, ours.boxes),
    )


def check(found: Sequence[Difference], tolerance: float, what: object) -> None:
    """Raise ``CheckpointError`` when scores or boxes differ by more than ``tolerance``."""
    for each in found:
        if not max(each.scores, each.boxes) <= tolerance:  # also for NaN
            raise CheckpointError(
                f"{what} is not written: on {each.what} pixels its scores differ from those in PyTorch by {each.scores:.1e} and its "
                f"boxes by {each.boxes:.1e}, more than {tolerance:g}; please report this with the kind of model"
            )


def as_record(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """Return differences as plain containers."""
    return [each._asdict() for each in found]
