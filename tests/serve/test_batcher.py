"""The queue in front of the model: batches of one shape, a bound, deadlines, and answers that depend on nobody else."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.serve.batcher import Batcher, Expired, QueueFull

LATER = 60.0  # seconds


class Recorder(Pipeline):
    """A pipeline that notes its batches and answers with the sum of the pixels. It waits for ``go``."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def shared(self, streams):
        return self

    def batch(self, pixels):
        return torch.stack(pixels)

    def detect(self, batch, sizes):
        self.go.wait(10)
        self.shapes.append(tuple(batch.shape))
        if self.error:
            raise self.error
        return [SimpleNamespace(total=float(each.sum())) for each in batch]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def start():
    started = []

    def make(**settings):
        started.append(Batcher(**{"batch_size": 4, "wait_ms": 0.0, "queue": 100, **settings}))
        return started[-1]

    yield make
    for each in started:
        each.close()


def image(value: float, size: int = 2) -> torch.Tensor:
    return torch.full((3, size, size), float(value))


def held(batcher, recorder):
    """Occupy the model with one image until ``recorder.go`` is set."""
    recorder.go.clear()
    first = batcher.detect(recorder, image(0, 1), (1, 1), time.monotonic() + LATER)
    while not first.running():
        time.sleep(0.001)
    return first


def test_images_of_a_shape_share_a_batch_and_keep_their_answers(start, recorder):
    batcher = start()
    held(batcher, recorder)
    until = time.monotonic() + LATER
    sizes = [2, 3, 2, 2, 3, 2, 2]
    futures = [batcher.detect(recorder, image(i, size), (1, 1), until) for i, size in enumerate(sizes)]
    recorder.go.set()

    answers = [each.result(10).detections.total for each in futures]
    assert answers == [3 * i * size * size for i, size in enumerate(sizes)]
    assert recorder.shapes[1:] == [(4, 3, 2, 2), (2, 3, 3, 3), (1, 3, 2, 2)]


def test_an_idle_model_waits_for_more_of_a_shape_but_not_while_others_wait(start, recorder):
    batcher = start(wait_ms=5000.0, batch_size=2)
    until = time.monotonic() + LATER
    began = time.monotonic()
    first = batcher.detect(recorder, image(1), (1, 1), until)
    time.sleep(0.05)
    assert not first.done()
    batcher.detect(recorder, image(1), (1, 1), until)
    assert first.result(2)
    other = batcher.detect(recorder, image(1), (1, 1), until)
    batcher.detect(recorder, image(1, 3), (1, 1), until)
    assert other.result(2)
    assert time.monotonic() - began < 4
    assert recorder.shapes[:2] == [(2, 3, 2, 2), (1, 3, 2, 2)]


def test_places_are_bounded_and_given_back(start, recorder):
    batcher = start(queue=3)
    with batcher.places(2):
        with pytest.raises(QueueFull) as full, batcher.places(2):
            pass
        assert full.value.seconds >= 1
        with batcher.places(1):
            assert batcher.reserved == 3
    assert batcher.reserved == 0


def test_what_waited_too_long_or_was_given_up_is_not_computed(start, recorder):
    batcher = start()
    held(batcher, recorder)
    late = batcher.detect(recorder, image(1), (1, 1), time.monotonic() - 1)
    given_up = batcher.detect(recorder, image(1, 3), (1, 1), time.monotonic() + LATER)
    wanted = batcher.detect(recorder, image(1, 4), (1, 1), time.monotonic() + LATER)
    assert given_up.cancel()
    recorder.go.set()

    assert wanted.result(10)
    with pytest.raises(Expired):
        late.result(10)
    assert recorder.shapes[1:] == [(1, 3, 4, 4)]


def test_an_error_is_given_to_who_asked_and_the_next_image_is_computed(start, recorder):
    batcher = start()
    recorder.error = MemoryError("no memory")
    with pytest.raises(MemoryError):
        batcher.detect(recorder, image(1), (1, 1), time.monotonic() + LATER).result(10)
    with pytest.raises(ZeroDivisionError):
        batcher.call(lambda: 1 // 0, time.monotonic() + LATER).result(10)
    recorder.error = None
    assert batcher.detect(recorder, image(1), (1, 1), time.monotonic() + LATER).result(10)


def test_calls_run_in_the_thread_of_the_model(start, recorder):
    batcher = start()
    thread = batcher.call(lambda: threading.current_thread().name, time.monotonic() + LATER).result(10)
    assert thread == "model-0"


def test_closing_answers_what_is_queued(start, recorder):
    batcher = start()
    held(batcher, recorder)
    last = batcher.detect(recorder, image(2), (1, 1), time.monotonic() + LATER)
    threading.Timer(0.05, recorder.go.set).start()
    batcher.close()
    assert last.result(0).detections.total == 24


def test_answers_do_not_depend_on_who_else_asks(start, starter, picture):
    batcher = start(batch_size=8)
    pixels = starter.pipeline.prepare(picture)
    size = (picture.height, picture.width)
    alone = starter.predict(picture, 0.0)
    until = time.monotonic() + LATER
    together = [batcher.detect(starter.pipeline, pixels, size, until) for _ in range(5)]
    for each in together:
        found = each.result(30).detections
        torch.testing.assert_close(found.boxes[:5], alone.boxes[:5], rtol=0, atol=1e-2)
        torch.testing.assert_close(found.scores, alone.scores, rtol=0, atol=1e-5)


def test_streams_share_the_processor_while_there_is_more_to_do(start, recorder, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    together = threading.Barrier(2)
    found = []

    def detect(batch, sizes):
        found.append((batch.shape[-1], torch.get_num_threads()))
        if batch.shape[-1] > 1:
            together.wait(10)
        return [SimpleNamespace(total=float(each.sum())) for each in batch]

    monkeypatch.setattr(recorder, "detect", detect, raising=False)
    try:
        batcher = start(streams=2)
    finally:
        torch.set_num_threads(threads)
    until = time.monotonic() + LATER
    batcher.detect(recorder, image(1, 1), (1, 1), until).result(10)
    both = [batcher.detect(recorder, image(1, size), (1, 1), until) for size in (2, 3)]
    assert [each.result(10).detections.total for each in both] == [12, 27]
    batcher.detect(recorder, image(1, 1), (1, 1), until).result(10)
    assert [found[0], found[-1]] == [(1, 4), (1, 4)]
    assert {size for size, _ in found[1:3]} == {2, 3}
    assert 2 in {own for _, own in found[1:3]}
