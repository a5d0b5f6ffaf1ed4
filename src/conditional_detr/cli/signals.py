"""Signals that stop a command."""

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType


@contextlib.contextmanager
def signals_interrupt() -> Generator[None]:
    """Let the signals that stop a run interrupt the block as Ctrl-C does. Under nohup, which ignores SIGHUP, it stays ignored."""
    from conditional_detr.data.loading import STOP_SIGNALS

    def interrupt(number: int, frame: FrameType | None) -> None:
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
