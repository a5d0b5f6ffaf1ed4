"""Ctrl-C as a request: the loop finishes its step, saves and ends."""

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """requested: True once the user (Ctrl-C) or the scheduler (SIGTERM) wants the run to end."""

    def __init__(self) -> None:
        self.requested = False
        self._at = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # The second Ctrl-C does not wait. Within a second it is the same one, sent to a process and to its group.
        if self.requested and number == signal.SIGINT and time.monotonic() - self._at > 1:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._at = True, time.monotonic()


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
