"""Apply a function to many items in threads, in order and with constant memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Thread
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_STREAMS = 4  # batches that are computed at once, because each needs memory


def streams_of_processor() -> int:
    """Return how many batches are computed at once on a CPU: as many as torch has threads, but at most ``MOST_STREAMS``."""
    return min(torch.get_num_threads(), MOST_STREAMS)


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield ``function(item)`` for every item in order. Threads compute up to ``ahead`` results in advance."""
    with ThreadPoolExecutor(min(ahead, os.cpu_count() or 1), "read-ahead") as pool:
        yield from _in_order(pool, function, items, ahead)


def in_streams(function: Callable[[Item], Result], items: Iterable[Item], streams: int) -> Iterator[Result]:
    """Yield ``function(item)`` for every item in order, where ``streams`` threads share the processor.

    Each of them has an equal part of torch's threads, so that none waits for another within an operation.
    """
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(streams, "stream", share_threads, (max(1, threads // streams), threads)) as pool:
        yield from _in_order(pool, function, items, streams + 1)


def share_threads(own: int, others: int) -> None:
    """Set the number of torch's threads for this thread alone.

    A thread takes the number that any thread set last, when it first asks for it. So this one asks at once, and another thread
    sets the number of ``others`` again.
    """
    torch.set_num_threads(own)
    torch.get_num_threads()
    other = Thread(target=torch.set_num_threads, args=(others,))
    other.start()
    other.join()


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    waiting = iter(items)
    pending = deque(pool.submit(function, item) for item in islice(waiting, ahead))
    try:
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
