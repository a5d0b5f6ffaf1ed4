"""Show log messages of the library on standard error, one per line, with warnings marked."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class _ConsoleHandler(logging.Handler):
    """Log handler that prints above the live progress line, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        text = f"warning: {record.getMessage()}" if warning else record.getMessage()
        console().print(text, style="yellow" if warning else "", markup=False)


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
