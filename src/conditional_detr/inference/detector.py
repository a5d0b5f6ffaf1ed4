"""``Detector``: a trained model, from images to detections."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast, overload

import torch
from PIL import Image
from torch import Tensor

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats import load
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.data.images import ImageLike, is_image, open_image
from conditional_detr.data.loading import in_threads
from conditional_detr.errors import ImageError, InputError, SettingsError
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.runtimes.torch import TorchRuntime
from conditional_detr.model.fast import FastDETR
from conditional_detr.model.network import DETR
from conditional_detr.record import BoxFrame, Categories, ModelRecord
from conditional_detr.structures import Detections


class Found(NamedTuple):
    """An image as opened, RGB, and the objects in it."""

    image: Image.Image
    detections: Detections


class _Opened(NamedTuple):
    """An image as opened, and what the model gets of it."""

    image: Image.Image
    pixels: Tensor


class Detector:
    """A model ready to run. Its boxes are in pixels of the image as given; a file is turned upright first.

    Several threads may call ``predict`` and ``stream`` at once.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device | None = None) -> None:
        """device: an accelerator when there is one, else the CPU, unless named. Raises ``SettingsError`` for one that is not there."""
        self.device = find_device(device)
        self.checkpoint = checkpoint
        self.model: DETR = checkpoint.model.to(self.device).eval()
        self.pipeline = Pipeline(checkpoint.record, TorchRuntime(self.model))

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
        differs from what the file says or implies (``InputSize``). Raises ``CheckpointError`` naming what is wrong.
        """
        found = find_device(device)  # before a large file is read
        return cls(open_checkpoint(source, dilation, boxes), found)

    def __repr__(self) -> str:
        architecture = self.record.architecture
        backbone = architecture.backbone if isinstance(architecture.backbone, str) else "ResNet"
        return (
            f"Detector({type(self.model).__name__}, {backbone}{', DC5' if architecture.dilation else ''}, "
            f"{len(self.categories)} categories, runs with {self.runtime})"
        )

    @property
    def record(self) -> ModelRecord:
        """What the model is apart from its weights."""
        return self.pipeline.record

    @property
    def categories(self) -> Categories:
        """The map logit index <-> category id <-> name."""
        return self.record.categories

    @property
    def runtime(self) -> str:
        """What runs the network, and where."""
        return self.pipeline.runtime.name

    def optimize(self, compile: bool = False) -> "Detector":
        """Predict faster from now on; return the detector. Call it again when the weights of ``model`` change.

        On a CPU predictions stay equal within rounding; on a GPU they are computed in half precision (bfloat16 where it has
        that). compile: with ``torch.compile`` too, which takes up to a minute for the first image, the first ones of other
        sizes, and the first ones with padding and in a batch; on a CPU it hardly pays. On a CPU, ``keep_freed_memory`` makes it
        faster still.
        """
        name = "torch, compiled" if compile else "torch, optimized"
        self.pipeline = Pipeline(self.record, TorchRuntime(FastDETR(self.model, compile), name))
        return self

    def set_sides(self, sides: tuple[int, int]) -> "Detector":
        """Bring images to another size from now on, by the same rule; return the detector. sides: as in ``InputSize``."""
        record = replace(self.record, input_size=replace(self.record.input_size, sides=sides))
        self.pipeline = replace(self.pipeline, record=record)
        self.checkpoint = replace(self.checkpoint, record=record)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a checkpoint folder, which transformers opens too."""
        load("huggingface").write(self.checkpoint, Path(folder))

    @overload
    def predict(self, images: ImageLike, threshold: float = 0.5, *, batch_size: int = 1) -> Detections: ...
    @overload
    def predict(
        self, images: Sequence[ImageLike], threshold: float = 0.5, *, batch_size: int = 1
    ) -> list[Detections]: ...
    def predict(
        self, images: ImageLike | Sequence[ImageLike], threshold: float = 0.5, *, batch_size: int = 1
    ) -> Detections | list[Detections]:
        """Find objects in one image or a list of them: whatever ``open_image`` takes.

        That is a path, a URL, bytes or an open binary file, a PIL image, an array ``[height, width]`` or
        ``[height, width, 1 | 3 | 4]`` (uint8, uint16, or float in 0..1; RGB), or a tensor ``[1 | 3 | 4, height, width]``.
        threshold: least score, in 0..1. batch_size: images per forward pass; images of different sizes are padded, which
        changes scores slightly. Raises ``ImageError`` naming an image that can't be used, and ``SettingsError`` for the others.
        """
        one = is_image(images)
        if not one and not isinstance(images, Iterable):
            open_image(cast(ImageLike, images))  # says what is taken
        listed = [images] if one else list(cast("Sequence[ImageLike]", images))
        found: list[Detections] = []
        for each in self.stream(cast("list[ImageLike]", listed), threshold, batch_size=batch_size):
            if isinstance(each, InputError):
                raise each
            found.append(each.detections)
        return found[0] if one else found

    def stream(
        self, images: Iterable[ImageLike], threshold: float = 0.5, *, batch_size: int = 1
    ) -> "Iterator[Found | InputError]":
        """Find objects image by image, in their order, for any number of images in constant memory.

        Threads open and resize the next images while the model works on these. In place of an image that can't be used comes
        an ``ImageError`` naming it. Raises ``SettingsError`` as ``predict``.
        """
        if not 0 <= threshold <= 1:
            raise SettingsError(
                f"threshold is {threshold}; scores are in 0..1, so give one of those", argument="threshold"
            )
        if batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size}; give at least 1", argument="batch_size")
        if is_image(images):
            raise SettingsError("stream takes several images; give a list, or call predict for one")
        return self._stream(images, threshold, batch_size)

    def _stream(self, images: Iterable[ImageLike], threshold: float, batch_size: int) -> "Iterator[Found | InputError]":
        opened = in_threads(self._open, enumerate(images), ahead=2 * batch_size + 2)
        while batch := list(islice(opened, batch_size)):
            usable = [each for each in batch if not isinstance(each, InputError)]
            found = iter(self._detect(usable) if usable else [])
            for each in batch:
                yield each if isinstance(each, InputError) else Found(each.image, next(found).above(threshold))

    def _open(self, numbered: tuple[int, ImageLike]) -> "_Opened | InputError":
        number, image = numbered
        try:
            opened = open_image(image, f"images[{number}]")
        except ImageError as error:
            return error
        return _Opened(opened, self.pipeline.prepare(opened))

    def _detect(self, images: "Sequence[_Opened]") -> list[Detections]:
        batch = self.pipeline.batch([each.pixels for each in images])
        return self.pipeline.detect(batch, [(each.image.height, each.image.width) for each in images])


def find_device(device: str | torch.device | None) -> torch.device:
    """Return a device: an accelerator when there is one, else the CPU, unless named. Raises ``SettingsError`` for one that is not there."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return accelerator or torch.device("cpu")
    there = ["cpu"]
    if accelerator is not None:
        there += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SettingsError(
            f"device {device!r} does not exist; there is {', '.join(there)}", argument="device"
        ) from error
    if str(wanted) not in there:
        raise SettingsError(f"device {str(wanted)!r} is not there; there is {', '.join(there)}", argument="device")
    return wanted
