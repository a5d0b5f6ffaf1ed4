"""``Detector``: a trained model with its categories and image sizes, from file to detections."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from conditional_detr.allocator import keep_freed_memory
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.huggingface import save_checkpoint
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.data.images import from_array, read_image, to_pixels, to_rgb
from conditional_detr.data.loading import in_threads, pad
from conditional_detr.data.transforms import BoxFrame
from conditional_detr.errors import InputError
from conditional_detr.model.inference import FastDETR
from conditional_detr.model.network import DETR
from conditional_detr.postprocess import PUBLISHED_COUNT, detections_from
from conditional_detr.structures import Categories, Detections, ImageBatch

ImageLike = str | Path | Image.Image | np.ndarray


class Found(NamedTuple):
    """An image as opened, RGB, and the objects in it."""

    image: Image.Image
    detections: Detections


class _Opened(NamedTuple):
    """An image as opened, and what the model gets of it."""

    image: Image.Image
    pixels: Tensor


class Detector:
    """A model ready to run. Its boxes are in pixels of the image as given; a file is turned upright first."""

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device | None = None) -> None:
        """device: an accelerator when there is one, else the CPU, unless named."""
        found = torch.accelerator.current_accelerator(check_available=True)
        self.device = torch.device(device or found or "cpu")
        self.checkpoint = checkpoint
        self.model: DETR = checkpoint.model.to(self.device).eval()
        self.network: DETR | FastDETR = self.model  # what predicts

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

    def optimize(self, compile: bool = False) -> "Detector":
        """Predict faster from now on; returns the detector. To be called again when the weights of ``model`` change.

        On a CPU predictions stay equal within rounding, and the process keeps memory that it has freed for the next
        image; on a GPU they are computed in half precision (bfloat16 where it has that). compile: with
        ``torch.compile`` too, which takes up to a minute for the first image, the first ones of other sizes, and the
        first ones with padding and in a batch; on a CPU it hardly pays.
        """
        if self.device.type == "cpu":
            keep_freed_memory()
        self.network = FastDETR(self.model, compile)
        return self

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
        one = isinstance(images, (str, Path, Image.Image, np.ndarray))
        found: list[Detections] = []
        for each in self.stream([images] if one else images, threshold, batch_size=batch_size):
            if isinstance(each, InputError):
                raise each
            found.append(each.detections)
        return found[0] if one else found

    def stream(
        self, images: Iterable[ImageLike], threshold: float = 0.5, *, batch_size: int = 1
    ) -> "Iterator[Found | InputError]":
        """What ``predict`` finds, image by image and in their order, for any number of images in constant memory.

        Threads open and resize the next images while the model works on these. In place of an image that can't be used comes
        an ``InputError`` naming it.
        """
        opened = in_threads(self._open, images, ahead=2 * batch_size + 2)
        while batch := list(islice(opened, batch_size)):
            usable = [each for each in batch if not isinstance(each, InputError)]
            found = iter(self._detect(usable) if usable else [])
            for each in batch:
                yield each if isinstance(each, InputError) else Found(each.image, next(found).above(threshold))

    def _open(self, image: ImageLike) -> "_Opened | InputError":
        try:
            opened = open_image(image)
        except InputError as error:
            return error
        return _Opened(opened, to_pixels(self.checkpoint.input_size.resize(opened)))

    def prepare(self, images: Sequence[Image.Image]) -> tuple[ImageBatch, list[tuple[float, float]]]:
        """What the model gets of RGB images, and the (height, width) that its boxes are then relative to, in their pixels."""
        resize = self.checkpoint.input_size.resize
        return self._batch([_Opened(image, to_pixels(resize(image))) for image in images])

    def _batch(self, images: "Sequence[_Opened]") -> tuple[ImageBatch, list[tuple[float, float]]]:
        size = self.checkpoint.input_size
        batch = pad([each.pixels for each in images], size.padded, size.mask).to(self.device)
        return batch, [size.frame(each.image.height, each.image.width, batch.size) for each in images]

    @torch.inference_mode()
    def _detect(self, images: "Sequence[_Opened]") -> list[Detections]:
        """Detections in every image, in one forward pass, without a threshold: as many as queries, at least 100."""
        batch, frames = self._batch(images)
        count = max(PUBLISHED_COUNT, self.checkpoint.settings.queries)
        predictions = self.network(batch.pixels, batch.padding_mask)
        return detections_from(predictions, frames, self.categories, count, self.model.softmax)


def open_image(image: ImageLike) -> Image.Image:
    """An RGB image of whatever ``Detector.predict`` takes. Raises ``InputError`` for one that can't be used."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    return from_array(image) if isinstance(image, np.ndarray) else to_rgb(image)
