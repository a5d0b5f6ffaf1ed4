"""What the library logs, as the command line shows it: on standard error, one line each, warnings marked."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class _ConsoleHandler(logging.Handler):
    """Prints above a live progress line, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        text = f"warning: {record.getMessage()}" if warning else record.getMessage()
        console().print(text, style="yellow" if warning else "", markup=False)


_console: "Console | None" = None


def console() -> "Console":
    """Return the one console on standard error; made on first use, since rich takes a while to load."""
    global _console
    if _console is None:
        from rich.console import Console

        _console = Console(stderr=True, highlight=False, soft_wrap=True)
    return _console


def show_log() -> None:
    """Show what the library logs."""
    logger = logging.getLogger("conditional_detr")
    logger.setLevel(logging.INFO)
    logger.handlers = [_ConsoleHandler()]
    logger.propagate = False
