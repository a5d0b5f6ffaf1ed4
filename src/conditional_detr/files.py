"""Atomic writes: a file is written completely or not at all."""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Yield a temporary path in the folder of ``path`` to write to.

    On success it is renamed to ``path``, with the mode of an ordinary new file. On failure it is deleted.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        partial.chmod(mode)  # safetensors creates files that only their owner can read
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file under another name and rename it, so that readers never see a partial file."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
