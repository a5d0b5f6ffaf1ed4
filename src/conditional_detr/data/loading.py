"""Annotations -> batches, the same from one seed whatever the number of workers, and restartable at any batch."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.batching import pad, prepare
from conditional_detr.data.images import read_image, to_pixels
from conditional_detr.data.transforms import LabelledImage, augment
from conditional_detr.errors import DataError, InputError
from conditional_detr.record import InputSize
from conditional_detr.structures import ImageBatch, Target

Sample = tuple[Tensor, Target]
Batch = tuple[ImageBatch, list[Target]]
Prepared = tuple[Tensor, LabelledImage]  # pixels, and the objects in an image of the same proportions
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """``function`` of every item, in order, computed by threads up to ``ahead`` items before it is asked for."""
    waiting = iter(items)
    with ThreadPoolExecutor(min(ahead, os.cpu_count() or 1), "read-ahead") as pool:
        pending = deque(pool.submit(function, item) for item in islice(waiting, ahead))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(waiting, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


class AnnotatedImages(Dataset[Sample | InputError]):
    """Images and targets of annotations. A key is (epoch, index).

    prepare: from image, epoch and index to normalized pixels and objects (boxes of 0..1). A file that can't be used is returned
    as an ``InputError``, which travels from a loading process as one sentence where a raised one would carry a traceback.
    """

    def __init__(self, annotations: Annotations, prepare: Callable[[LabelledImage, int, int], Prepared]) -> None:
        self.annotations, self.prepare = annotations, prepare

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: tuple[int, int]) -> Sample | InputError:
        epoch, index = key
        try:
            return self._sample(epoch, index)
        except InputError as error:
            return error

    def _sample(self, epoch: int, index: int) -> Sample:
        annotations = self.annotations
        path = annotations.path(index)
        image = read_image(path)
        height, width = (int(side) for side in annotations.sizes[index])
        if image.size != (width, height):
            raise DataError(
                f"{path} is {image.width} x {image.height} when turned upright, but {annotations.source} says "
                f"{width} x {height}; its boxes would be misplaced: correct the annotations or the image"
            )
        boxes, labels = annotations.training_objects(index)
        sample = LabelledImage(image, torch.from_numpy(boxes), torch.from_numpy(labels))
        pixels, sample = self.prepare(sample, epoch, index)
        target = Target(
            labels=sample.labels,
            boxes=sample.relative_boxes(),
            image_id=int(annotations.image_ids[index]),
            image_name=str(path),
            image_size=(height, width),
        )
        return pixels, target


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """Endless batches of one process, from a given step on: epoch after epoch, each in an order of its own.

    An epoch is the images in whole global batches (all processes and accumulated passes); what is left over is dropped,
    as published. With fewer images than one global batch, images repeat to fill it.
    """

    def __init__(
        self,
        *,
        upright: np.ndarray | None,
        images: int,
        batch_size: int,
        accumulate: int,
        rank: int,
        processes: int,
        seed: int,
        start_step: int = 0,
    ) -> None:
        self.upright, self.images, self.seed = upright, images, seed
        self.batch_size, self.accumulate = batch_size, accumulate
        self.rank, self.processes, self.start_step = rank, processes, start_step
        self.steps_per_epoch = max(1, images // self.global_batch)

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.accumulate * self.processes

    def order(self, epoch: int) -> np.ndarray:
        """Image indices of an epoch, ``[steps, accumulate * processes, batch_size]``."""
        rng = np.random.default_rng([self.seed, epoch])
        order = np.resize(rng.permutation(self.images), max(self.images, self.global_batch))
        if self.upright is not None:
            order = _grouped(order, self.upright[order], self.batch_size, rng)
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


def _grouped(order: np.ndarray, upright: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """The same images with upright and lying ones in batches of their own; a mixed batch holds what is left of both."""
    groups = [order[upright], order[~upright]]
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
) -> tuple[Generator[Batch], int]:
    """Augmented batches without end, ``accumulate`` to an optimizer step, and the steps per epoch; close it after use.

    ``next`` raises ``InputError`` naming the image that can't be used.
    """
    upright = annotations.sizes[:, 0] > annotations.sizes[:, 1] if settings.group_by_aspect_ratio else None
    sampler = TrainingBatches(
        upright=upright,
        images=len(annotations),
        batch_size=batch_size,
        accumulate=accumulate,
        rank=rank,
        processes=processes,
        seed=seed,
        start_step=start_step,
    )
    dataset = AnnotatedImages(annotations, partial(_augmented, settings, seed))
    return _batches(dataset, sampler, settings.workers), sampler.steps_per_epoch


def evaluation_batches(
    annotations: Annotations, size: InputSize, batch_size: int, workers: int, rank: int = 0, processes: int = 1
) -> Iterator[Batch]:
    """Every ``processes``-th image once, brought to its size only. ``next`` raises ``InputError`` naming an unusable image."""
    indices = range(rank, len(annotations), processes)
    keys = [[(0, i) for i in indices[start : start + batch_size]] for start in range(0, len(indices), batch_size)]
    return _batches(AnnotatedImages(annotations, partial(_resized, size)), keys, workers, size)


def _augmented(settings: DataSettings, seed: int, sample: LabelledImage, epoch: int, index: int) -> Prepared:
    sample = augment(sample, settings, np.random.default_rng([seed, epoch, index]))
    return to_pixels(sample.image), sample


def _resized(size: InputSize, sample: LabelledImage, epoch: int, index: int) -> Prepared:
    return prepare(sample.image, size), sample


def _batches(
    dataset: AnnotatedImages,
    keys: Sampler[list[tuple[int, int]]] | list[list[tuple[int, int]]],
    workers: int,
    size: InputSize | None = None,
) -> Generator[Batch]:
    loader = DataLoader(
        dataset,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=partial(_collate, size or InputSize()),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_signals,
        # The data has seeds of its own; without a generator each loader would draw from the one that dropout uses.
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield cast(Batch, batch)


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the whole process group; only the main one decides what follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _collate(size: InputSize, samples: list[Sample | InputError]) -> Batch | InputError:
    usable: list[Sample] = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        usable.append(sample)
    return pad([pixels for pixels, _ in usable], size), [target for _, target in usable]
