"""Report the progress of a run: a live line on a terminal, plain lines elsewhere, and TensorBoard."""

import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from conditional_detr.runs import Metrics

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0


class _StandardError:
    """``sys.stderr`` at the moment of writing. A terminal that was closed is no error, because the run still has to be saved."""

    @property
    def _stream(self) -> Any:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # a live line puts a proxy in its place

    @property
    def encoding(self) -> str | None:
        return self._stream.encoding

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def standard_error() -> Console:
    """Return a console on standard error, which goes on without a terminal once that is closed."""
    return Console(file=cast("IO[str]", _StandardError()), highlight=False, soft_wrap=True, emoji=False)


class Reporter:
    """Receiver of the progress of a run, called on the main process only. The methods of this base class do nothing."""

    def begin(self, step: int, total_steps: int, steps_per_epoch: int) -> None: ...
    def planned(self, total_steps: int) -> None:
        """The number of steps is decided, or was corrected (``train.minutes``). Until then, it is 0."""

    def step(self, record: Metrics) -> None: ...
    def evaluating(self, done: int, images: int) -> None: ...
    def evaluated(self, record: Metrics, best: bool) -> None:
        """best: whether the model is kept as the best so far, or as the newest while AP is 0 or can't be measured (-1)."""

    def end(self) -> None: ...


class ConsoleReporter(Reporter):
    """Reporter that writes to standard error: a live line on a terminal, otherwise a line every ten seconds."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or standard_error()
        self.progress: Progress | None = None
        self.total_steps = self.steps_per_epoch = 0
        self.last_line = self.started = 0.0
        self.first_step = 0

    def message(self, text: str) -> None:
        self.console.print(text, markup=False)

    def begin(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        self.total_steps, self.steps_per_epoch, self.first_step = total_steps, steps_per_epoch, step
        self.started, self.last_line = time.monotonic(), 0.0
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
                BarColumn(bar_width=self._room()[1]),
                TextColumn("{task.percentage:.0f}% eta"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.progress.add_task("starting", total=total_steps or None, completed=step)
            self.progress.start()

    def planned(self, total_steps: int) -> None:
        self.total_steps = total_steps
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], total=total_steps)

    def step(self, record: Metrics) -> None:
        parts = [
            f"epoch {self._epoch(record['step'])}",
            f"step {record['step']}/{self.total_steps or '?'}",
            f"loss {record['loss']:.3f}",
            f"lr {record['lr']:.1e}",
            f"{record['images_per_second']:.1f} images/s",
            f"data wait {record['data_wait']:.0%}",
        ]
        if self.progress is not None:
            self._show(record["step"], parts)
        elif time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            done = record["step"] - self.first_step
            remaining = (self.last_line - self.started) / done * (self.total_steps - record["step"])
            eta = [f"eta {_duration(remaining)}"] if self.total_steps else []
            self.message("  ".join([*parts, *eta]))

    def _show(self, step: int | None, parts: list[str]) -> None:
        """Show the first parts, as many as fit into the live line."""
        assert self.progress is not None
        room, _ = self._room()
        text = parts[0]
        for part in parts[1:]:
            if len(text) + 2 + len(part) > room:
                break
            text += f"  {part}"
        self.progress.update(self.progress.task_ids[0], completed=step, description=text[:room])

    def _room(self) -> tuple[int, int]:
        """Return the widths of text and bar in the live line, in columns. Percentage and remaining time take the rest."""
        room = max(self.console.width - len(" 100% eta 100:00:00 "), 1)
        bar = min(room // 5, 24)
        return room - bar - 1, bar

    def evaluating(self, done: int, images: int) -> None:
        if self.progress is not None:
            self._show(None, [f"evaluating image {done}/{images}"])

    def evaluated(self, record: Metrics, best: bool) -> None:
        if record["AP"] < 0:
            self.message(f"epoch {record['epoch']:g}: no boxes to measure AP with")
            return
        kept = "" if not best else "  (best so far)" if record["AP"] > 0 else "  (kept as the newest)"
        self.message(
            f"epoch {record['epoch']:g}: AP {record['AP']:.3f}  AP50 {record['AP50']:.3f}  AP75 {record['AP75']:.3f}{kept}"
        )

    def end(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def _epoch(self, step: int) -> str:
        epochs = -(-self.total_steps // self.steps_per_epoch)
        return f"{-(-step // self.steps_per_epoch)}/{epochs or '?'}"


class TensorBoard:
    """Writer of metrics for TensorBoard; no-op if TensorBoard is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(folder))

    def write(self, record: Metrics) -> None:
        if self.writer is None or record["kind"] not in ("train", "evaluation"):
            return
        for key, value in record.items():
            if isinstance(value, float) and value >= 0:  # -1 is a metric that can't be measured
                self.writer.add_scalar(f"{record['kind']}/{key}", value, cast(int, record["step"]))

    def close(self) -> None:
        if self.writer is not None:
            try:
                self.writer.close()
            except OSError as error:  # at the end of a run that the same disk may have ended
                logger.warning(
                    f"the newest lines of TensorBoard are not written ({error.strerror}); metrics.jsonl has them"
                )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
