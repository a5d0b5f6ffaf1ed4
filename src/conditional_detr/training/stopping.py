"""Stop on request: after Ctrl-C or a signal, the training loop finishes its step, saves a state and ends."""

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from conditional_detr.data.loading import STOP_SIGNALS


class StopRequest:
    """Signal handler that records a request to stop. requested: True after one of ``STOP_SIGNALS``."""

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
    """Record ``STOP_SIGNALS`` as a request to stop within the block. Outside the main thread, signals are not handled.

    A run under nohup, which ignores SIGHUP, goes on ignoring it.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    ignored = [each for each in STOP_SIGNALS if signal.getsignal(each) == signal.SIG_IGN]
    always = (signal.SIGINT, signal.SIGTERM)  # a shell ignores SIGINT for what it starts in the background
    previous = {
        number: signal.signal(number, request) for number in STOP_SIGNALS if number in always or number not in ignored
    }
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
