"""Stop on request: after Ctrl-C, the training loop finishes its step, saves a state and ends."""

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Signal handler that records a request to stop. requested: True after Ctrl-C (SIGINT) or a scheduler's SIGTERM."""

    def __init__(self) -> None:
        self.requested = False
        self._at = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # A second Ctrl-C stops at once. Within a second it counts as the same one, sent to both process and group.
        if self.requested and number == signal.SIGINT and time.monotonic() - self._at > 1:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._at = True, time.monotonic()


@contextmanager
def stop_requests() -> Generator[StopRequest]:
    """Record SIGINT and SIGTERM as a request to stop within the block. Outside the main thread, signals are not handled."""
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
