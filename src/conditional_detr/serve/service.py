"""A detector that answers many requests at once, apart from HTTP."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from PIL import Image
from torch import Tensor

from conditional_detr.data.images import decode_image, pixels_in
from conditional_detr.inference.detector import Detector
from conditional_detr.inference.fingerprint import fingerprint
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.streams import streams_of_processor
from conditional_detr.serve.batcher import Answer, Batcher
from conditional_detr.serve.metrics import Metrics
from conditional_detr.serve.settings import ServerSettings
from conditional_detr.structures import Detections

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
_LARGE = 16_000_000  # pixels; photographs of telephones have fewer


@dataclass(frozen=True)
class Loaded:
    """A detector in use. version: first digits of its fingerprint."""

    detector: Detector
    version: str
    since: float


class Upload(NamedTuple):
    """An image of a request. name: for messages and answers. content: an image file, or an image that is decoded already."""

    name: str
    content: bytes | Image.Image


class Found(NamedTuple):
    """An image with all its detections, without a threshold. The times are in seconds."""

    upload: Upload
    size: tuple[int, int]  # (height, width) in pixels
    detections: Detections
    decoding: float
    waiting: float
    computing: float


class _Prepared(NamedTuple):
    size: tuple[int, int]
    pixels: Tensor
    seconds: float


class Service:
    """A detector behind a queue. Requests are coroutines; images are decoded in threads, and the model has threads of its own.

    open_detector: opens the detector, at the start and for ``reload``. Raises what it raises.
    """

    def __init__(self, open_detector: Callable[[], Detector], settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.stopping = False
        self._open_detector = open_detector
        self._loaded = self._load()
        streams = streams_of_processor()
        self._batcher = Batcher(
            batch_size=settings.batch_size,
            wait_ms=settings.wait_ms,
            queue=settings.queue,
            streams=streams if self._loaded.detector.pipeline.shared(streams) else 1,
            on_batch=self.metrics.note_batch,
        )
        self.metrics.queue.set_function(lambda: self._batcher.reserved)
        self._large = threading.Lock()
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "decode")

    @property
    def loaded(self) -> Loaded:
        """The detector that new requests use."""
        return self._loaded

    @property
    def full(self) -> bool:
        """Whether the queue has no room for even one image."""
        return self._batcher.reserved >= self.settings.queue

    @property
    def seconds_to_room(self) -> float:
        """Seconds after which a full queue is expected to have room."""
        return self._batcher.seconds_to_room

    async def detect(self, uploads: Sequence[Upload], deadline: float, loaded: Loaded) -> list[Found]:
        """Find the objects in the images of a request. deadline: by ``time.monotonic``.

        Raises ``QueueFull``, ``Expired``, and ``ImageError`` for an image that can't be used.
        """
        with self._batcher.places(len(uploads)):
            return await _all([self._detect(each, deadline, loaded.detector.pipeline) for each in uploads])

    async def call(self, function: Callable[[], Result], deadline: float) -> Result:
        """Call a function that uses the model, in one of its threads. It takes one place in the queue. Raises as ``detect``."""
        with self._batcher.places(1):
            return await asyncio.wrap_future(self._batcher.call(function, deadline))

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Call a function that decodes or encodes an image, in a thread for that."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def using(self, upload: Upload, function: Callable[[Image.Image], Result]) -> Result:
        """Return ``function(image)`` for the image of an upload. Raises ``ImageError``.

        An image is not kept after that, and large ones are in memory one at a time: a file of a few kilobytes may hold millions
        of pixels.
        """
        if not isinstance(upload.content, bytes):
            return function(upload.content)
        large = pixels_in(upload.content, upload.name) > _LARGE
        with self._large if large else nullcontext():
            return function(decode_image(upload.content, upload.name, max_pixels=self.settings.max_pixels))

    def reload(self) -> None:
        """Open the detector again. Requests that have begun are answered by the old one. On failure it stays, and the log says why."""
        try:
            loaded = self._load()
        except Exception as error:
            self.metrics.reloads.labels("failed").inc()
            logger.error(f"the model was not reloaded, and version {self._loaded.version} stays: {error}")
            return
        before, self._loaded = self._loaded.version, loaded
        self.metrics.reloads.labels("done").inc()
        logger.info(f"reloaded the model: version {before} is replaced by {loaded.version}")

    def close(self) -> None:
        """Compute what is queued, and end all threads."""
        self._batcher.close()
        self._threads.shutdown()

    def _load(self) -> Loaded:
        detector = self._open_detector()
        detector.predict(
            Image.new("RGB", (640, 480))
        )  # fails here rather than in a request, and the first request is not slow
        return Loaded(detector, fingerprint(detector)[:12], time.time())

    async def _detect(self, upload: Upload, deadline: float, pipeline: Pipeline) -> Found:
        prepared = await self.in_thread(lambda: self._prepare(upload, pipeline))
        queued = self._batcher.detect(pipeline, prepared.pixels, prepared.size, deadline)
        answer: Answer = await asyncio.wrap_future(queued)
        return Found(upload, prepared.size, answer.detections, prepared.seconds, answer.waited, answer.computed)

    def _prepare(self, upload: Upload, pipeline: Pipeline) -> _Prepared:
        start = time.monotonic()
        size, pixels = self.using(
            upload, lambda image: ((image.height, image.width), pipeline.prepare(image, upload.name))
        )
        seconds = time.monotonic() - start
        self.metrics.parts.labels("decode").observe(seconds)
        return _Prepared(size, pixels, seconds)


async def _all(coroutines: "Sequence[Coroutine[object, object, Result]]") -> list[Result]:
    """Return the results of all coroutines. When one fails or the caller is cancelled, the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
