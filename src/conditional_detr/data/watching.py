"""Notice killed loading processes where a batch is awaited, and nowhere else."""

import signal
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from conditional_detr.errors import RunError

Item = TypeVar("Item")


class _Watch:
    """Handler of SIGCHLD that calls another one, torch's, only while a batch is awaited.

    torch's raises an error wherever the main thread is. In the middle of an optimizer step, that would leave weights that
    belong to no step and can't be saved.
    """

    def __init__(self, handler: Any) -> None:
        self.handler = handler
        self.waiting = self.pending = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        if self.waiting:
            self._pass_on()

    @contextmanager
    def awaiting(self) -> Generator[None]:
        try:
            self.waiting = True
            if self.pending:
                self._pass_on()
            yield
        finally:
            self.waiting = False

    def _pass_on(self) -> None:
        self.pending = False
        self.handler(signal.SIGCHLD, None)


def watched(loader: Iterable[Item]) -> Generator[Item]:
    """Yield the items of a data loader. Raises ``RunError`` when a loading process was killed or could not be started."""
    try:
        items = iter(loader)  # torch sets its handler
    except OSError as error:
        raise RunError(f"loading processes can't be started ({error.strerror}); set a smaller data.workers") from error
    with _watch() as watch:
        while True:
            try:
                with watch.awaiting():
                    item = next(items)
            except StopIteration:
                return
            except RuntimeError as error:
                text = " ".join(str(error).split())
                if not text.startswith("DataLoader worker"):
                    raise
                raise RunError(
                    f"a loading process was killed, most often because memory ran out ({text.rstrip('.')}); "
                    f"set a smaller data.workers or batch size"
                ) from error
            yield item


@contextmanager
def _watch() -> Generator[_Watch]:
    """Put a watch in the place of torch's handler, unless another loader has. Without loading processes there is none."""
    main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
    if isinstance(previous, _Watch) or not callable(previous):
        yield previous if isinstance(previous, _Watch) else _Watch(None)
        return
    watch = _Watch(previous)
    signal.signal(signal.SIGCHLD, watch)
    try:
        yield watch
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, previous)
