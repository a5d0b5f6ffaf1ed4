"""``Detector``: a trained model with its categories and image sizes, from file to detections."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from PIL import Image

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.huggingface import save_checkpoint
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.data.images import from_array, read_image, to_pixels, to_rgb
from conditional_detr.data.loading import pad
from conditional_detr.data.transforms import BoxFrame
from conditional_detr.model.network import DETR
from conditional_detr.postprocess import PUBLISHED_COUNT, detections_from
from conditional_detr.structures import Categories, Detections, ImageBatch

ImageLike = str | Path | Image.Image | np.ndarray


class Detector:
    """A model ready to run. Its boxes are in pixels of the image as given; a file is turned upright first."""

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device | None = None) -> None:
        """device: an accelerator when there is one, else the CPU, unless named."""
        found = torch.accelerator.current_accelerator(check_available=True)
        self.device = torch.device(device or found or "cpu")
        self.checkpoint = checkpoint
        self.model: DETR = checkpoint.model.to(self.device).eval()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | torch.device | None = None,
        *,
        dilation: bool | None = None,
        boxes: BoxFrame | None = None,
    ) -> "Detector":
        """Open a run folder (its best checkpoint), a checkpoint folder of ours or of transformers, a ``.pth`` file of the
        official codes or of MMDetection, or an id on the Hugging Face hub; the format is seen from the content.

        dilation: whether it is a DC5 model, for files that do not say. boxes: what its boxes are relative to, where that
        differs from what the file says or implies (``InputSize``). Raises ``InputError`` naming what is wrong.
        """
        return cls(open_checkpoint(source, dilation, boxes), device)

    @property
    def categories(self) -> Categories:
        """The map logit index <-> category id <-> name."""
        return self.checkpoint.categories

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a checkpoint folder, which transformers opens too."""
        save_checkpoint(self.checkpoint, Path(folder))

    @overload
    def predict(self, images: ImageLike, threshold: float = 0.5, *, batch_size: int = 1) -> Detections: ...
    @overload
    def predict(
        self, images: Sequence[ImageLike], threshold: float = 0.5, *, batch_size: int = 1
    ) -> list[Detections]: ...
    def predict(
        self, images: ImageLike | Sequence[ImageLike], threshold: float = 0.5, *, batch_size: int = 1
    ) -> Detections | list[Detections]:
        """Objects in one image or a list of them: a path, a PIL image or a uint8 array ``[height, width, 3]`` (RGB).

        threshold: least score. batch_size: images per forward pass; images of different sizes are padded, which changes
        scores slightly. Raises ``InputError`` naming an image that can't be used.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return next(self._predict([images], threshold, 1))
        return list(self._predict(images, threshold, batch_size))

    def _predict(self, images: Sequence[ImageLike], threshold: float, batch_size: int) -> Iterator[Detections]:
        for start in range(0, len(images), batch_size):
            opened = [open_image(image) for image in images[start : start + batch_size]]
            yield from (found.above(threshold) for found in self.detect(opened))

    def prepare(self, images: Sequence[Image.Image]) -> tuple[ImageBatch, list[tuple[float, float]]]:
        """What the model gets of RGB images, and the (height, width) that its boxes are then relative to, in their pixels."""
        size = self.checkpoint.input_size
        batch = pad([to_pixels(size.resize(image)) for image in images], size.padded, size.mask).to(self.device)
        return batch, [size.frame(image.height, image.width, batch.size) for image in images]

    @torch.inference_mode()
    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        """Detections in every RGB image, in one forward pass, without a threshold: as many as queries, at least 100."""
        batch, frames = self.prepare(images)
        count = max(PUBLISHED_COUNT, self.checkpoint.settings.queries)
        predictions = self.model(batch.pixels, batch.padding_mask)
        return detections_from(predictions, frames, self.categories, count, self.model.softmax)


def open_image(image: ImageLike) -> Image.Image:
    """An RGB image of whatever ``Detector.predict`` takes. Raises ``InputError`` for one that can't be used."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    return from_array(image) if isinstance(image, np.ndarray) else to_rgb(image)
