"""Writing files whole or not at all."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A path beside ``path`` to write to; it becomes ``path`` when that succeeded."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that a reader never sees half of it."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
