"""Times, rates and memory, measured so that noise shows."""

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(ours: list[float], theirs: list[float]) -> Spread:
    """Of runs that took place in pairs, which a machine's moods then hit alike."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeats: int, warmup: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each run in turn, A B A B ..., after ``warmup`` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeats):
        for name, run in runs.items():
            wait_for(device)
            started = time.perf_counter()
            run()
            wait_for(device)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def matrix_rate(device: torch.device, size: int = 2048) -> float:
    """Multiply-adds per second of float32 products of square matrices: the best of several, and of torch's two ways to
    compute them, which on some processors differ by a fifth.
    """
    a = torch.randn(size, size, device=device)
    as_image = a.view(1, 1, size, size).permute(0, 3, 1, 2)
    runs = {"product": lambda: a @ a, "convolution": lambda: functional.conv2d(as_image, a[:, :, None, None])}
    seconds = interleaved(runs, repeats=9, warmup=2, device=device)
    return size**3 / min(map(min, seconds.values()))


def peak_memory(make: Callable[..., Callable[[], object]], *arguments: Any) -> int | None:
    """Bytes that ``make(*arguments)`` and two calls of what it returns take at most, in a process of their own.

    What Python and the libraries take is not counted. None where the system does not tell.
    """
    if not Path("/proc/self/status").exists():
        return None
    context = multiprocessing.get_context("spawn")
    answers: SimpleQueue[int] = context.SimpleQueue()
    process = context.Process(target=_measure, args=(answers, make, arguments))
    process.start()
    process.join()
    return None if answers.empty() else answers.get()


def _measure(
    answers: "SimpleQueue[int]", make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]
) -> None:
    torch.ones(64, 64).matmul(torch.ones(64, 64))  # loads what the libraries load on first use
    before = _status("VmRSS")
    run = make(*arguments)
    for _ in range(2):
        run()
    answers.put(_status("VmHWM") - before)


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Clock:
    """Adds up seconds by the name of a part."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def measured(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its time taken."""

        def run(*arguments: Any, **named: Any) -> Any:
            wait_for(self.device)
            started = time.perf_counter()
            result = function(*arguments, **named)
            wait_for(self.device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            return result

        return run

    def watch(self, name: str, module: torch.nn.Module) -> None:
        """Take the time of a module's forward passes, until ``release``."""
        started: list[float] = []

        def before(*_: object) -> None:
            wait_for(self.device)
            started.append(time.perf_counter())

        def after(*_: object) -> None:
            wait_for(self.device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started.pop()

        self._handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def release(self) -> None:
        for handle in self._handles:
            handle.remove()
