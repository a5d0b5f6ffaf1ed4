"""``Detector``, which finds objects in images with a trained model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args, overload

import torch
from PIL import Image
from torch import Tensor

from conditional_detr.checkpoints.category_names import GivenNames
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats import load
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.data.images import ImageLike, is_image, name_of, open_image
from conditional_detr.errors import ImageError, InputError, SettingsError
from conditional_detr.exports import export_file
from conditional_detr.hub import push
from conditional_detr.inference.devices import find_device, named_device
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.runtimes import RuntimeName
from conditional_detr.inference.runtimes.exported import Exported
from conditional_detr.inference.runtimes.opening import open_export
from conditional_detr.inference.runtimes.torch import TorchRuntime
from conditional_detr.inference.streams import in_streams, read_ahead, streams_of_processor
from conditional_detr.input_size import BoxFrame
from conditional_detr.model.fast import FastDETR
from conditional_detr.model.network import DETR
from conditional_detr.record import Categories, ModelRecord
from conditional_detr.structures import Detections

Threshold = float | Literal["auto"]


class Found(NamedTuple):
    """An RGB image and the objects found in it. best_score: the highest score, also when it is below the threshold."""

    image: Image.Image
    detections: Detections
    best_score: float


class _Opened(NamedTuple):
    """An RGB image and its prepared pixels, the input of the model."""

    image: Image.Image
    pixels: Tensor


class Detector:
    """A trained model for prediction. Boxes are in pixels of the image as given, files after their EXIF rotation.

    Several threads may call ``predict`` and ``stream`` at once.
    """

    def __init__(self, model: Checkpoint | Exported, device: str | torch.device | None = None) -> None:
        """model: a checkpoint, or an exported model, which is on its device. device: as in ``from_pretrained``.

        Raises ``SettingsError`` for an unavailable device.
        """
        self._model: DETR | Path  # the path of an exported file
        if isinstance(model, Exported):
            self.device, self._model, self._origin = model.device, model.file, None
            self.pipeline = Pipeline(model.record, model.runtime)
        else:
            self.device, self._origin = find_device(device), model.origin
            self._model = model.model.to(self.device).eval()
            self.pipeline = Pipeline(model.record, TorchRuntime(self._model))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | torch.device | None = None,
        *,
        dilation: bool | None = None,
        boxes: BoxFrame | None = None,
        names: GivenNames | None = None,
        runtime: RuntimeName = "auto",
        revision: str | None = None,
    ) -> "Detector":
        """Open a model from any supported source; the format is detected from the content.

        source: run folder (its best checkpoint), checkpoint folder written by this package or by transformers, ``.pth`` file
        of the official codes or MMDetection, id on the Hugging Face hub, or what ``export`` wrote (an ``.onnx`` file or a
        folder). device: by default an accelerator if available, else the CPU. dilation: whether it
        is a DC5 model, for files that do not say. boxes: frame of the predicted boxes (``InputSize``), to override that of
        the file. names: names of the categories, for files without them: a name for every row of the class head, a map from
        category ids to names, or a file (text with a name in every line, COCO annotations, YOLO's data.yaml). runtime: what
        computes the network; "auto": PyTorch for checkpoints, and the fastest that is installed for exports. revision: branch, tag
        or commit of a hub id, which may also be written owner/name@revision. Raises
        ``CheckpointError`` for a source that can't be opened, and ``SettingsError`` for an unavailable device or runtime, and for
        names that do not fit the class head.
        """
        if runtime not in get_args(RuntimeName):
            raise SettingsError(
                f"runtime {runtime!r} does not exist; give one of {', '.join(get_args(RuntimeName))}",
                argument="runtime",
            )
        if file := export_file(source):
            for name, value in (("dilation", dilation), ("boxes", boxes), ("names", names), ("revision", revision)):
                if value is not None:
                    raise SettingsError(
                        f"{file} is an export, which fixes {name}; give it when you export", argument=name
                    )
            return cls(open_export(file, runtime, None if device is None else named_device(device)))
        if runtime not in ("auto", "torch"):
            raise SettingsError(
                f"{source} is a checkpoint, which runs in PyTorch; to run it with {runtime}, export it first: "
                f"cdetr export {source} model.onnx",
                argument="runtime",
            )
        found = find_device(device)  # fails before a large file is read
        return cls(open_checkpoint(source, dilation, boxes, names=names, revision=revision), found)

    def __repr__(self) -> str:
        architecture = self.record.architecture
        backbone = architecture.backbone if isinstance(architecture.backbone, str) else "ResNet"
        kind = "ConditionalDETR" if architecture.decoder == "conditional" else "DETR"
        return (
            f"Detector({kind}, {backbone}{', DC5' if architecture.dilation else ''}, "
            f"{len(self.categories)} categories, runs with {self.runtime})"
        )

    @property
    def model(self) -> DETR:
        """The network in PyTorch. Raises ``SettingsError`` for an exported model, which has none."""
        if isinstance(self._model, Path):
            raise SettingsError(
                f"{self._model} is an export, which can only predict; for weights, attention and the fast path of PyTorch give the "
                f"checkpoint that it was exported from"
            )
        return self._model

    @property
    def exported_file(self) -> Path | None:
        """The file that an exported model was read from; None for a network in PyTorch."""
        return self._model if isinstance(self._model, Path) else None

    @property
    def record(self) -> ModelRecord:
        """Architecture, categories and input size of the model."""
        return self.pipeline.record

    @property
    def checkpoint(self) -> Checkpoint:
        """The model with its record, to be saved or converted."""
        return Checkpoint(self.model, self.record, self._origin)

    @property
    def categories(self) -> Categories:
        """Map between logit indices, category ids and names."""
        return self.record.categories

    @property
    def runtime(self) -> str:
        """Name of the runtime and device that compute the network."""
        return self.pipeline.runtime.name

    def optimize(self, compile: bool = False) -> "Detector":
        """Switch to the fast path for prediction, and return the detector. Call again when the weights of ``model`` change.

        On a CPU, predictions stay equal within rounding; ``keep_freed_memory`` makes them faster still. On a GPU, they are
        computed in half precision (bfloat16 if supported). compile: use ``torch.compile`` too. It takes up to a minute for the
        first image, and again for the first image of another size, the first padded one and the first batch. On a CPU it
        hardly helps.
        """
        name = "torch, compiled" if compile else "torch, optimized"
        self.pipeline = Pipeline(self.record, TorchRuntime(FastDETR(self.model, compile), name))
        return self

    def set_sides(self, sides: tuple[int, int]) -> "Detector":
        """Change the size that images are scaled to, and return the detector. sides: as in ``InputSize``, in pixels.

        Raises ``SettingsError`` for sizes that ``InputSize`` refuses, and for an export of a fixed size.
        """
        own = self.record.input_size
        if self.exported_file is not None and own.padded is not None and sides != own.sides:
            raise SettingsError(
                f"{self.exported_file} may only take images of {own.sides[0]}x{own.sides[1]} pixels; export it without a size",
                argument="sides",
            )
        try:
            size = replace(self.record.input_size, sides=sides)
        except ValueError as error:
            raise SettingsError(f"sides: {error}", argument="sides") from error
        record = replace(self.record, input_size=size)
        self.pipeline = replace(self.pipeline, record=record)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a checkpoint folder, which transformers can open too."""
        load("huggingface").write(self.checkpoint, Path(folder))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        run: str | Path | None = None,
        private: bool = False,
        license: str | None = None,
        pictures: bool = True,
        message: str = "Upload model",
        token: str | None = None,
    ) -> str:
        """Upload the model with a model card to the Hugging Face hub, and return its address. Arguments are those of ``hub.push``."""
        return push(
            self.checkpoint,
            repo_id,
            run=run,
            private=private,
            license=license,
            pictures=pictures,
            message=message,
            token=token,
        ).url

    @overload
    def predict(self, images: ImageLike, threshold: Threshold = 0.5, *, batch_size: int = 1) -> Detections: ...
    @overload
    def predict(
        self, images: Sequence[ImageLike], threshold: Threshold = 0.5, *, batch_size: int = 1
    ) -> list[Detections]: ...
    def predict(
        self, images: ImageLike | Sequence[ImageLike], threshold: Threshold = 0.5, *, batch_size: int = 1
    ) -> Detections | list[Detections]:
        """Find objects in one image, or in each of a list of images.

        images: a path, a URL, bytes or an open binary file, a PIL image, an array ``[height, width]`` or
        ``[height, width, 1 | 3 | 4]`` (uint8, uint16, or float in 0..1; RGB), or a tensor ``[1 | 3 | 4, height, width]``; or a
        list of these. threshold: minimum score, in 0..1; "auto": for each category, the one with the best F1 on validation data,
        which the record of the model holds once it was measured. batch_size: images per forward pass; images of different
        sizes are padded, which changes scores slightly. Raises ``ImageError`` for an image that can't be used, and ``SettingsError`` for
        an invalid threshold or batch size.
        """
        one = is_image(images)
        if not one and (not isinstance(images, Iterable) or isinstance(images, Mapping)):
            open_image(cast(ImageLike, images))  # raises an error that lists the accepted types
        listed = [images] if one else list(cast("Sequence[ImageLike]", images))
        found: list[Detections] = []
        for each in self.stream(cast("list[ImageLike]", listed), threshold, batch_size=batch_size):
            if isinstance(each, InputError):
                raise each
            found.append(each.detections)
        return found[0] if one else found

    def stream(
        self, images: Iterable[ImageLike], threshold: Threshold = 0.5, *, batch_size: int = 1
    ) -> "Iterator[Found | InputError]":
        """Yield images with the objects found in them, in order. Memory stays constant for any number of images.

        On a CPU several batches, at most four, are opened and computed at once, each with its part of the processor; on a GPU,
        threads open the next images while the model computes. An image that can't be used yields an ``ImageError``
        in its place. Arguments are those of ``predict``. Raises ``SettingsError`` for an invalid threshold or batch size, and
        when ``images`` is a single image.
        """
        least = self.thresholds(threshold)
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size!r}; give a whole number from 1", argument="batch_size")
        if is_image(images):
            raise SettingsError("stream takes several images; give a list, or call predict for one")
        return self._stream(images, least, batch_size)

    def thresholds(self, threshold: Threshold) -> float | dict[int, float]:
        """Return a threshold that ``predict`` takes as numbers: one for all, or with "auto" one for each category id.

        Raises ``SettingsError`` for a threshold that is not in 0..1, and for "auto" when the model records none.
        """
        if isinstance(threshold, str) and threshold == "auto":
            measured = self.record.thresholds
            if measured is None:
                raise SettingsError(
                    "this model records no best thresholds; give a threshold in 0..1, or evaluate its folder with a report, "
                    "which writes them into it",
                    argument="threshold",
                )
            return dict(zip(self.categories.ids, measured.of_rows(), strict=True))
        if not isinstance(threshold, Real) or not 0 <= threshold <= 1:
            raise SettingsError(
                f'threshold is {threshold!r}; scores are in 0..1, so give a value in 0..1 or "auto"',
                argument="threshold",
            )
        return float(threshold)

    def _stream(
        self, images: Iterable[ImageLike], threshold: float | dict[int, float], batch_size: int
    ) -> "Iterator[Found | InputError]":
        waiting = enumerate(images)
        batches = iter(lambda: list(islice(waiting, batch_size)), [])
        first = list(islice(batches, 2))
        streams = streams_of_processor()
        shared = self.pipeline.shared(streams) if len(first) > 1 else None
        batches = chain(first, batches)
        if shared is None:
            opened = read_ahead(self._open, chain.from_iterable(batches), ahead=2 * batch_size + 2)
            computed = map(partial(self._detect, self.pipeline), iter(lambda: list(islice(opened, batch_size)), []))
        else:
            computed = in_streams(lambda batch: self._detect(shared, map(self._open, batch)), batches, streams)
        for found in computed:
            for each in found:
                if isinstance(each, Found):
                    yield each._replace(detections=each.detections.above(threshold))
                else:
                    yield each

    def _open(self, numbered: tuple[int, ImageLike]) -> "_Opened | InputError":
        number, image = numbered
        name = name_of(image, f"images[{number}]")
        try:
            opened = open_image(image, name)
            return _Opened(opened, self.pipeline.prepare(opened, name))
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(f"{name} takes more memory than there is; scale it down")

    @staticmethod
    def _detect(pipeline: Pipeline, opened: "Iterable[_Opened | InputError]") -> "list[Found | InputError]":
        """Return all detections of the images of a batch, with errors in their places."""
        images = list(opened)
        usable = [each for each in images if isinstance(each, _Opened)]
        batch = pipeline.batch([each.pixels for each in usable]) if usable else None
        sizes = [(each.image.height, each.image.width) for each in usable]
        found = iter(pipeline.detect(batch, sizes) if batch else [])
        answers: list[Found | InputError] = []
        for each in images:
            if isinstance(each, _Opened):
                everything = next(found)
                answers.append(Found(each.image, everything, float(everything.scores.max())))
            else:
                answers.append(each)
        return answers
