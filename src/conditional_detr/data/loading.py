"""Load batches of annotated images, reproducibly for any number of workers and from any batch on."""

import logging
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.batching import pad, prepare
from conditional_detr.data.images import read_image, to_pixels
from conditional_detr.data.transforms import LabeledImage, augment, chance, mosaic
from conditional_detr.data.watching import watched
from conditional_detr.errors import DataError, InputError
from conditional_detr.input_size import InputSize, resized_size
from conditional_detr.structures import ImageBatch, Target

logger = logging.getLogger(__name__)

# Signals that ask a run to save a state and stop: Ctrl-C, a scheduler's SIGTERM or SIGUSR1, and a closed terminal.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)

Sample = tuple[Tensor, Target]
Batch = tuple[ImageBatch, list[Target]]
Read = Callable[[int], LabeledImage]  # reads an image by its index
MOST_REPLACED = 100  # images in a row that can't be used, after which none is looked for
Prepared = tuple[Tensor, LabeledImage]  # pixels, and the labeled image with the same aspect ratio


class Failure(NamedTuple):
    """The name of an image file that can't be used, as in the annotations, and why."""

    image: str
    error: InputError


class Loaded(NamedTuple):
    """A loaded image, None where there is none, and the images that can't be used."""

    sample: Sample | None
    failures: list[Failure]


class LeftOut:
    """Names of the image files that were left out because they can't be used (``data.on_error=skip``).

    Call it with a failure; it is logged unless the image was left out before.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, failure: Failure) -> None:
        if failure.image not in self.names:
            self.names.add(failure.image)
            logger.warning(f"left out: {failure.error}")


def usable_images(
    data: Annotations, indices: Iterable[int], on_error: Literal["stop", "skip"]
) -> Iterator[Image.Image]:
    """Yield images of a data set without their annotations. on_error: what to do about one that can't be used; skip: log it.

    Raises ``InputError`` for such an image with ``on_error="stop"``, and ``DataError`` when none can be used.
    """
    left_out, count = LeftOut(), 0
    for index in indices:
        path = data.path(index)
        try:
            image = read_image(path)
        except InputError as error:
            if on_error == "stop":
                raise
            left_out(Failure(str(path), error))
            continue
        count += 1
        yield image
    if not count:
        raise DataError(f"none of the images in {data.folder} can be used; replace them")


class AnnotatedImages(Dataset[Loaded]):
    """Data set of annotated images. Keys are (epoch, index); items are pixels and a target with boxes in 0..1.

    prepare: function of a reader of labeled images, epoch and index that returns normalized pixels and the labeled image they
    show. replace: take the next usable image in the place of one that can't be used.

    Errors of images that can't be used are part of the item. They are not raised, because the data loader would add the
    traceback of the loading process to their message.
    """

    def __init__(
        self, annotations: Annotations, prepare: Callable[[Read, int, int], Prepared], replace: bool = False
    ) -> None:
        self.annotations, self.prepare, self.replace = annotations, prepare, replace

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: tuple[int, int]) -> Loaded:
        epoch, index = key
        failures: list[Failure] = []
        for place in self._places(index):
            try:
                read = partial(self._read_in_place, index, place, failures)
                return Loaded(self._sample(read, epoch, index, place), failures)
            except InputError as error:
                failures.append(Failure(self.annotations.file_names[place], error))
        return Loaded(None, failures)

    def _places(self, index: int) -> list[int]:
        """Return the indices of the images that may be taken for an image: itself, and with ``replace`` those that follow."""
        count = min(MOST_REPLACED, len(self)) if self.replace else 1
        return [(index + i) % len(self) for i in range(count)]

    def _read_in_place(self, index: int, place: int, failures: list[Failure], other: int) -> LabeledImage:
        """Read image ``place`` for image ``index``. Another one, for a mosaic, is replaced by the next usable one."""
        if other == index:
            return self.read(place)
        for each in self._places(other):
            try:
                return self.read(each)
            except InputError as error:
                failures.append(Failure(self.annotations.file_names[each], error))
        raise failures[-1].error

    def draws(self, index: int, epochs: Sequence[int]) -> list[Sample]:
        """Return the items of an image in several epochs. Raises ``InputError`` for an image that can't be used."""
        read = lru_cache(maxsize=4)(self.read)  # the image and those of a mosaic with it
        return [self._sample(read, epoch, index, index) for epoch in epochs]

    def read(self, index: int) -> LabeledImage:
        """Decode an image, without augmentation. Raises ``InputError`` for an image that can't be used."""
        annotations = self.annotations
        path = annotations.path(index)
        image = read_image(path)
        height, width = (int(side) for side in annotations.sizes[index])
        if image.size != (width, height):
            raise DataError(
                f"{path} is {image.width} x {image.height} after EXIF rotation, but {annotations.source} says "
                f"{width} x {height}, so its boxes would be misplaced; correct the annotations or the image"
            )
        boxes, labels = annotations.training_objects(index)
        return LabeledImage(image, torch.from_numpy(boxes), torch.from_numpy(labels), str(path))

    def _sample(self, read: Read, epoch: int, index: int, place: int) -> Sample:
        """Return image ``place`` with the random augmentation of image ``index``."""
        pixels, sample = self.prepare(read, epoch, index)
        height, width = (int(side) for side in self.annotations.sizes[place])
        target = Target(
            labels=sample.labels,
            boxes=sample.relative_boxes(),
            image_id=int(self.annotations.image_ids[place]),
            image_name=sample.name,
            image_size=(height, width),
        )
        return pixels, target


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """Endless sampler of the batches of one process, starting at ``start_step``. Every epoch has its own order.

    A global batch holds the images of one optimizer step: of all processes and accumulated passes. An epoch consists of whole
    global batches; the remaining images are dropped, as published. When there are fewer images than one global batch, images
    repeat to fill it. portrait: True for portrait images, to batch them separately; None for no grouping.
    """

    def __init__(
        self,
        *,
        portrait: np.ndarray | None,
        images: int,
        batch_size: int,
        accumulate: int,
        rank: int,
        processes: int,
        seed: int,
        start_step: int = 0,
    ) -> None:
        self.portrait, self.images, self.seed = portrait, images, seed
        self.batch_size, self.accumulate = batch_size, accumulate
        self.rank, self.processes, self.start_step = rank, processes, start_step
        self.steps_per_epoch = max(1, images // self.global_batch)

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.accumulate * self.processes

    def order(self, epoch: int) -> np.ndarray:
        """Return the image indices of an epoch, ``[steps, accumulate * processes, batch_size]``."""
        rng = np.random.default_rng([self.seed, epoch])
        order = np.resize(rng.permutation(self.images), max(self.images, self.global_batch))
        if self.portrait is not None:
            order = _grouped(order, self.portrait[order], self.batch_size, rng)
        used = self.steps_per_epoch * self.global_batch
        return order[:used].reshape(self.steps_per_epoch, self.accumulate * self.processes, self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.start_step
        while True:
            epoch, first = divmod(step, self.steps_per_epoch)
            for batches in self.order(epoch)[first:]:
                for batch in batches[self.rank :: self.processes]:
                    yield [(epoch, int(index)) for index in batch]
            step = (epoch + 1) * self.steps_per_epoch


def _grouped(order: np.ndarray, portrait: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Reorder images so that portrait and landscape ones are batched separately. The images left over are mixed."""
    groups = [order[portrait], order[~portrait]]
    whole = [group[: len(group) // batch_size * batch_size].reshape(-1, batch_size) for group in groups]
    rest = np.concatenate([group[len(part) * batch_size :] for group, part in zip(groups, whole, strict=True)])
    batches = rng.permutation(np.concatenate(whole))
    return np.concatenate([batches.reshape(-1), rest])


def training_batches(
    annotations: Annotations,
    settings: DataSettings,
    batch_size: int,
    accumulate: int,
    seed: int,
    rank: int = 0,
    processes: int = 1,
    start_step: int = 0,
    mosaic_epochs: int | None = None,
    leave_out: Callable[[Failure], None] | None = None,
) -> tuple[Generator[Batch], int]:
    """Return an endless generator of augmented batches, and the number of optimizer steps per epoch.

    batch_size: images per batch. accumulate: batches per optimizer step. rank, processes: index of this process, and number
    of processes. start_step: optimizer step to start from. mosaic_epochs: as in ``training_images``. leave_out: called with an image that can't be used, in whose place
    the next usable one is taken. Without it, ``next`` raises the ``InputError`` of the image. It raises ``RunError`` when a
    loading process was killed. Close the generator after use.
    """
    order = training_order(annotations, settings, batch_size, accumulate, seed, rank, processes, start_step)
    images = training_images(annotations, settings, seed, mosaic_epochs, replace=leave_out is not None)
    return _batches(images, order, settings.workers, leave_out), order.steps_per_epoch


def training_order(
    annotations: Annotations,
    settings: DataSettings,
    batch_size: int,
    accumulate: int,
    seed: int,
    rank: int = 0,
    processes: int = 1,
    start_step: int = 0,
) -> TrainingBatches:
    """Return the order of the images in training. The arguments are those of ``training_batches``."""
    return TrainingBatches(
        portrait=annotations.sizes[:, 0] > annotations.sizes[:, 1] if settings.group_by_aspect_ratio else None,
        images=len(annotations),
        batch_size=batch_size,
        accumulate=accumulate,
        rank=rank,
        processes=processes,
        seed=seed,
        start_step=start_step,
    )


def training_images(
    annotations: Annotations, settings: DataSettings, seed: int, mosaic_epochs: int | None = None, replace: bool = False
) -> AnnotatedImages:
    """Return the augmented images. mosaic_epochs: number of epochs with mosaics, from the first on; None for all. replace: as in
    ``AnnotatedImages``.
    """
    return AnnotatedImages(annotations, partial(_augmented, settings, seed, len(annotations), mosaic_epochs), replace)


def evaluation_batches(
    annotations: Annotations,
    size: InputSize,
    batch_size: int,
    workers: int,
    rank: int = 0,
    processes: int = 1,
    leave_out: Callable[[Failure], None] | None = None,
) -> Generator[Batch]:
    """Yield batches of every ``processes``-th image, starting with image ``rank``, scaled but not augmented.

    leave_out: called with an image that can't be used, which is then in no batch. Without it, ``next`` raises the
    ``InputError`` of the image. It raises ``RunError`` when a loading process was killed.
    """
    indices = range(rank, len(annotations), processes)
    keys = [[(0, i) for i in indices[start : start + batch_size]] for start in range(0, len(indices), batch_size)]
    return _batches(AnnotatedImages(annotations, partial(_resized, size)), keys, workers, leave_out, size)


def _augmented(
    settings: DataSettings, seed: int, images: int, mosaic_epochs: int | None, read: Read, epoch: int, index: int
) -> Prepared:
    rng = np.random.default_rng([seed, epoch, index])
    sample = read(index)
    if (mosaic_epochs is None or epoch < mosaic_epochs) and chance(settings.mosaic, rng):
        # The shape is that of the image, by which batches are grouped. The size is the largest that training uses.
        height, width = sample.image.height, sample.image.width
        size = resized_size(height, width, max(settings.short_sides), settings.max_size)
        others = rng.integers(images, size=3).tolist()
        sample = mosaic(chain([sample], map(read, others)), *size, settings.min_visible, rng)
    sample = augment(sample, settings, rng)
    return to_pixels(sample.image), sample


def _resized(size: InputSize, read: Read, epoch: int, index: int) -> Prepared:
    sample = read(index)
    return prepare(sample.image, size, sample.name), sample


def _batches(
    dataset: AnnotatedImages,
    keys: Sampler[list[tuple[int, int]]] | list[list[tuple[int, int]]],
    workers: int,
    leave_out: Callable[[Failure], None] | None,
    size: InputSize | None = None,
) -> Generator[Batch]:
    loader = DataLoader(
        dataset,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=partial(_collate, size or InputSize()),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_process,
        # The data has its own seeds. Without a generator, each loader would draw from torch's default one, as dropout does.
        generator=torch.Generator().manual_seed(0),
    )
    for batch, failures, missing in watched(loader):
        if missing and dataset.replace:
            raise DataError(
                f"no usable image is left among {min(MOST_REPLACED, len(dataset))} in a row; check the image folder "
                f"{dataset.annotations.folder} (the last error: {failures[-1].error})"
            )
        for failure in failures:
            if leave_out is None:
                raise failure.error
            leave_out(failure)
        if batch is not None:
            yield batch


def _begin_process(worker: int) -> None:
    """Leave to the main process what it handles and tells.

    The signals that ask a run to stop reach the whole process group. When the main process ends in the middle of a transfer
    because another loading process was killed, Python would print a traceback here.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = lambda *_: None


def _collate(size: InputSize, items: list[Loaded]) -> tuple[Batch | None, list[Failure], bool]:
    """Return the batch, None where it would be empty, the images that can't be used, and whether one has no replacement."""
    samples = [item.sample for item in items if item.sample is not None]
    failures = [failure for item in items for failure in item.failures]
    batch = (pad([pixels for pixels, _ in samples], size), [target for _, target in samples]) if samples else None
    return batch, failures, len(samples) < len(items)
