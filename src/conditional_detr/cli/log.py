"""What the commands print. Text of unknown origin is made safe to show, and log messages go to standard error."""

import logging
from typing import TYPE_CHECKING

import typer

from conditional_detr.text import printable

if TYPE_CHECKING:
    from rich.console import Console


def say(*lines: object, err: bool = False) -> None:
    """Print lines to standard output, or with ``err`` to standard error. Each stays one line, whatever names are in it."""
    for line in lines:
        typer.echo(printable(line), err=err)


class _ConsoleHandler(logging.Handler):
    """Log handler that prints warnings in color."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        note(f"warning: {record.getMessage()}" if warning else record.getMessage(), "yellow" if warning else "")


def note(line: object, style: str = "") -> None:
    """Print a line to standard error, above the live progress line if there is one."""
    console().print(printable(line), style=style, markup=False)


_console: "Console | None" = None


def console() -> "Console":
    """Return the shared console on standard error. It is created on first use, because rich is slow to import."""
    global _console
    if _console is None:
        from conditional_detr.training.report import standard_error

        _console = standard_error()
    return _console


def show_log() -> None:
    """Print log messages of the library from level INFO on."""
    logger = logging.getLogger("conditional_detr")
    logger.setLevel(logging.INFO)
    logger.handlers = [_ConsoleHandler()]
