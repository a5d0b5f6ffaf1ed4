"""The queue in front of the model: bounded, and computed in batches.

On a CPU several batches are computed at once while images wait, each with its part of the processor. One thread on a GPU.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.streams import share_threads
from conditional_detr.structures import Detections

Result = TypeVar("Result")


class QueueFull(Exception):  # noqa: N818 - a state that passes, as in the standard library's queue.Full
    """No more images are accepted for now. seconds: after how many there will be room, as far as can be told."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the queue is full; try again in {seconds:.1f} s")
        self.seconds = seconds


class Expired(Exception):  # noqa: N818 - as above
    """The time of the request was over before the model came to it."""


class Answer(NamedTuple):
    """All detections of an image, without a threshold. waited, computed: seconds in the queue, and of the batch in the model."""

    detections: Detections
    waited: float
    computed: float


class BatchReport(NamedTuple):
    """What was computed at once. images: number of images. waited: seconds that each was in the queue. computed: seconds."""

    images: int
    waited: list[float]
    computed: float


@dataclass(frozen=True, eq=False)
class _Image:
    pixels: Float[Tensor, "3 height width"]
    size: tuple[int, int]  # (height, width) of the image before it was scaled
    pipeline: Pipeline
    deadline: float
    since: float = field(default_factory=time.monotonic)
    future: "Future[Answer]" = field(default_factory=Future)

    def fits(self, first: "_Image") -> bool:
        """Tell whether two images may share a batch. Without padding, an answer does not depend on who else asks."""
        return self.pixels.shape == first.pixels.shape and self.pipeline is first.pipeline


@dataclass(frozen=True, eq=False)
class _Call:
    function: Callable[[], Any]
    deadline: float
    future: "Future[Any]" = field(default_factory=Future)


class Batcher:
    """Computes images in batches, in threads of its own. Images of the same shape share a batch, the oldest first.

    batch_size, wait_ms, queue: as in ``ServerSettings``. streams: number of batches at once. A batch has the whole processor while
    nothing else is to be done, else an equal part of it. on_batch: called after each batch, in the thread that computed it.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        wait_ms: float,
        queue: int,
        streams: int = 1,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self.batch_size, self.wait, self.queue, self.streams = batch_size, wait_ms / 1000, queue, streams
        self._on_batch = on_batch
        self._waiting: deque[_Image | _Call] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._reserved = 0
        self._computing = 0  # threads that compute
        self._seconds_per_image = 0.0
        all_threads = torch.get_num_threads()
        self._threads = [
            threading.Thread(target=self._work, args=(all_threads,), name=f"model-{number}", daemon=True)
            for number in range(streams)
        ]
        for each in self._threads:
            each.start()

    @property
    def reserved(self) -> int:
        """Number of images that are accepted and not answered."""
        return self._reserved

    @property
    def seconds_to_room(self) -> float:
        """Seconds that the images in the queue are expected to take, at least 1."""
        return max(1.0, self._reserved * self._seconds_per_image)

    @contextmanager
    def places(self, count: int) -> Generator[None]:
        """Reserve places in the queue for the images of a request. Raises ``QueueFull``."""
        with self._changed:
            if self._reserved + count > self.queue:
                raise QueueFull(self.seconds_to_room)
            self._reserved += count
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= count

    def detect(
        self, pipeline: Pipeline, pixels: Float[Tensor, "3 height width"], size: tuple[int, int], deadline: float
    ) -> "Future[Answer]":
        """Queue a prepared image. size: (height, width) before it was prepared. deadline: by ``time.monotonic``.

        The future raises ``Expired`` when the model did not come to it in time.
        """
        image = _Image(pixels, size, pipeline, deadline)
        self._add(image)
        return image.future

    def call(self, function: Callable[[], Result], deadline: float) -> "Future[Result]":
        """Queue a function that uses the model, to be called in one of the model's threads. deadline: as in ``detect``."""
        call = _Call(function, deadline)
        self._add(call)
        return call.future

    def close(self) -> None:
        """Compute what is queued, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for each in self._threads:
            each.join()

    def _add(self, job: "_Image | _Call") -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(job)
            self._changed.notify_all()

    def _work(self, all_threads: int) -> None:
        own = 0  # threads of torch for this thread
        while job := self._next():
            if time.monotonic() > job.deadline:
                job.future.set_exception(Expired())
                continue
            batch = self._batch_with(job) if isinstance(job, _Image) else []
            with self._sharing() as shared:
                threads = max(1, all_threads // self.streams) if shared else all_threads
                if threads != own:
                    share_threads(threads, all_threads)
                    own = threads
                if isinstance(job, _Call):
                    _answer(job)
                else:
                    self._compute(batch, shared)

    @contextmanager
    def _sharing(self) -> Generator[bool]:
        """Count a thread as computing. Yield whether others compute too, or will soon."""
        with self._changed:
            self._computing += 1
            shared = self.streams > 1 and (self._computing > 1 or bool(self._waiting))
        try:
            yield shared
        finally:
            with self._changed:
                self._computing -= 1

    def _next(self) -> "_Image | _Call | None":
        """Wait for a job that nobody has given up. Return None at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return None
                job = self._waiting.popleft()
            if job.future.set_running_or_notify_cancel():
                return job

    def _batch_with(self, first: _Image) -> list[_Image]:
        """Return an image with those that fit to it. It waits for more only while no other job is waiting."""
        batch, until = [first], time.monotonic() + self.wait
        with self._changed:
            while True:
                for each in list(self._waiting):
                    if len(batch) < self.batch_size and isinstance(each, _Image) and each.fits(first):
                        self._waiting.remove(each)
                        if each.future.set_running_or_notify_cancel():
                            batch.append(each)
                left = until - time.monotonic()
                if len(batch) >= self.batch_size or self._waiting or self._closed or left <= 0:
                    return batch
                self._changed.wait(left)

    def _compute(self, batch: list[_Image], shared: bool) -> None:
        start = time.monotonic()
        pipeline = batch[0].pipeline
        try:
            pipeline = (shared and pipeline.shared(self.streams)) or pipeline
            found = pipeline.detect(pipeline.batch([each.pixels for each in batch]), [each.size for each in batch])
        except BaseException as error:  # who asked handles it
            for each in batch:
                each.future.set_exception(error)
            return
        computed = time.monotonic() - start
        recent = computed / len(batch) / (self.streams if shared else 1)
        self._seconds_per_image = 0.9 * self._seconds_per_image + 0.1 * recent if self._seconds_per_image else recent
        waited = [start - each.since for each in batch]
        self._on_batch(BatchReport(len(batch), waited, computed))
        for each, detections, seconds in zip(batch, found, waited, strict=True):
            each.future.set_result(Answer(detections, seconds, computed))


def _answer(call: _Call) -> None:
    try:
        call.future.set_result(call.function())
    except BaseException as error:  # who asked handles it
        call.future.set_exception(error)
