"""Progress of a long command on standard error: a live line on a terminal, and a line now and then in a log."""

import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from conditional_detr.cli.log import console, note

if TYPE_CHECKING:
    from rich.progress import Progress

_SECONDS = 30.0  # between two lines of a log


class Pace:
    """Shows images per second and the time that is left, within a block.

    total: images of the command. before: those of them that an earlier command did. images: those that were done in the block.
    """

    def __init__(self, total: int, before: int = 0) -> None:
        self.images = 0
        self._total, self._before = total, before
        self._started = self._told = time.monotonic()
        self._live: Progress | None = None

    def __enter__(self) -> "Pace":
        if console().is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("detecting"), BarColumn(), TextColumn("{task.description}"))
            self._live = Progress(*columns, console=console(), transient=True)
            self._live.start()
            self._task = self._live.add_task(self.text(), total=self._total, completed=self._before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def advance(self, images: int) -> None:
        self.images += images
        if self._live is not None:
            self._live.update(self._task, advance=images, description=self.text())
        elif time.monotonic() - self._told >= _SECONDS:
            self._told = time.monotonic()
            note(self.text())

    def text(self) -> str:
        """Say what is done, how fast, and how long the rest will take at the speed so far."""
        done = self._before + self.images
        text = f"{done} of {self._total} images"
        if not self.images:
            return text
        rate = self.images / max(time.monotonic() - self._started, 1e-9)
        left = timedelta(seconds=round((self._total - done) / rate))
        return f"{text}, {rate:.1f} images/s, {left} left"
