"""Ctrl-C as a request: the loop finishes its step, saves and ends."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """requested: True once the user (Ctrl-C) or the scheduler (SIGTERM) wants the run to end."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.requested:  # the second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stop_requests() -> Generator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while the block runs. Outside the main thread nothing is caught."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
