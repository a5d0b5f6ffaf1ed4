"""Measure times, rates and memory, with their spread."""

import multiprocessing
import re
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from conditional_detr.errors import InputError


class Spread(NamedTuple):
    """Median and quartiles of a list of measurements."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(ours: list[float], theirs: list[float]) -> Spread:
    """Return the spread of ratios of paired runs. Pairing cancels slow changes in the machine's speed."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that the device takes for one call."""
    wait_for(device)
    started = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - started


def in_turns(runs: Mapping[str, Callable[[], float]], repeats: int, warmup: int) -> dict[str, list[float]]:
    """Call the runs in turns (A B A B ...) and return the seconds that they report. ``warmup`` rounds are left out."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeats):
        for name, run in runs.items():
            told = run()
            if turn >= warmup:
                seconds[name].append(told)
    return seconds


def matrix_rate(device: torch.device) -> float:
    """Measure the rate of products of square float32 matrices, in multiply-adds per second.

    The result is the best of several measurements of both a matrix product and a 1x1 convolution, whose rates differ by a
    fifth on some processors. On a GPU, the convolution may use TF32.
    """
    size = 2048 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device)
    as_image = a.view(1, 1, size, size).permute(0, 3, 1, 2)
    ways = {"product": lambda: a @ a, "convolution": lambda: functional.conv2d(as_image, a[:, :, None, None])}
    runs = {name: partial(seconds_of, way, device) for name, way in ways.items()}
    seconds = in_turns(runs, repeats=9, warmup=2)
    return size**3 / min(map(min, seconds.values()))


_LESS = "try a smaller batch or image size"


class Contender:
    """The callable that ``make(*arguments)`` returns, created and measured in its own process.

    The separate process keeps other contenders from affecting it, for example through memory that they have freed. device:
    device of the callable. Methods raise ``InputError`` when there is too little memory, and ``RuntimeError`` with the
    traceback of the process for other errors.
    """

    def __init__(self, device: torch.device, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, device, make, arguments), daemon=True)
        self._process.start()
        other.close()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()  # ends the process unless it is computing
        self._process.join(timeout=5)
        self._process.kill()
        self._process.join()

    def seconds(self) -> float:
        """Return the seconds of one call. Short calls are repeated for 0.2 seconds, because the first after a pause is slow.

        The result is then the median.
        """
        return self._ask("seconds")

    def outputs(self) -> Any:
        """Return the result of its method ``outputs``, as float32 NumPy arrays."""
        return self._ask("outputs")

    def peak_memory(self) -> int | None:
        """Return the peak memory on the device in bytes; on a CPU without that of Python and the libraries.

        Return None where the system does not report it.
        """
        return self._ask("peak_memory")

    def _ask(self, question: str) -> Any:
        try:
            self._connection.send(question)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            if self._process.exitcode == -9:  # SIGKILL, a name that not every system defines
                raise InputError(
                    f"the system killed the measured process, most likely for lack of memory; {_LESS}"
                ) from error
            raise RuntimeError(f"the measured process ended with exit code {self._process.exitcode}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(
    connection: Connection,
    device: torch.device,
    make: Callable[..., Callable[[], object]],
    arguments: tuple[Any, ...],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others
    torch.ones(64, 64).matmul(torch.ones(64, 64))  # makes the libraries load what they need on first use
    before = _status("VmRSS")
    run: Any = None
    answers = {
        "seconds": lambda: _median_seconds(run, device),
        "outputs": lambda: [each.detach().cpu().float().numpy() for each in run.outputs()],
        "peak_memory": lambda: _peak_memory(device, before),
    }
    with suppress(EOFError, OSError):  # the parent has closed the connection
        while True:
            question = connection.recv()
            try:
                run = run or make(*arguments)
                answer = answers[question]()
            except InputError as error:
                answer = error
            except Exception as error:
                answer = RuntimeError(traceback.format_exc())
                if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
                    answer = InputError(f"the device's memory is too small; {_LESS}")
            connection.send(answer)


def _median_seconds(run: Callable[[], object], device: torch.device) -> float:
    seconds = [seconds_of(run, device)]
    while sum(seconds) < 0.2:
        seconds.append(seconds_of(run, device))
    return statistics.median(seconds)


def _peak_memory(device: torch.device, before: int | None) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = _status("VmHWM")
    return None if device.type != "cpu" or before is None or most is None else most - before


def _status(field: str) -> int | None:
    """Return a field of /proc/self/status in bytes, or None if the system has no such file."""
    file = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", file.read_text()) if file.exists() else None
    return None if found is None else int(found[1]) * 1024


class Clock:
    """Timer that adds up the seconds of named parts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def measured(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function wrapped so that its time is added to part ``name``."""

        def run(*arguments: Any, **named: Any) -> Any:
            wait_for(self.device)
            started = time.perf_counter()
            result = function(*arguments, **named)
            wait_for(self.device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            return result

        return run

    def watch(self, name: str, module: torch.nn.Module) -> None:
        """Add the time of the module's forward passes to part ``name``, until ``release``."""
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
