"""Signals that end a command early."""

import contextlib
import signal
import threading
import time
from collections.abc import Generator
from types import FrameType

PATIENCE = 3.0  # seconds for what follows an interruption, before another signal ends that too


@contextlib.contextmanager
def signals_interrupt() -> Generator[None]:
    """Let the first of the signals that stop a run interrupt the block, as Ctrl-C does. What is done can then be finished.

    Signals of the next ``PATIENCE`` seconds are ignored, because some systems send several. Later ones interrupt again. Under nohup, which ignores SIGHUP, it stays ignored.
    """
    from conditional_detr.data.loading import STOP_SIGNALS

    ignored_until = 0.0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal ignored_until
        if time.monotonic() >= ignored_until:
            ignored_until = time.monotonic() + PATIENCE
            raise KeyboardInterrupt

    always = (signal.SIGINT, signal.SIGTERM)  # a shell ignores SIGINT for what it starts in the background
    numbers = [each for each in STOP_SIGNALS if each in always or signal.getsignal(each) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may handle signals
    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
