"""Atomic writes: a file or folder is written completely or not at all."""

import json
import os
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from conditional_detr.errors import InputError


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


@contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """Yield a temporary folder to write to. ``path`` must not exist, or be an empty folder.

    On success it is renamed to ``path``, or its contents are moved there, because an empty folder may be a mounted disk or the
    current folder. On failure all is deleted.
    """
    existed = path.exists()
    partial = path / ".partial" if existed else path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    moved: list[Path] = []
    try:
        yield partial
        if not existed:
            os.replace(partial, path)
            return
        for each in sorted(partial.iterdir()):
            moved.append(path / each.name)
            os.replace(each, moved[-1])
        partial.rmdir()
    except BaseException:
        for each in (partial, *moved):
            shutil.rmtree(each, ignore_errors=True)
            each.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file under another name and rename it, so that readers never see a partial file."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(file: Path, kind: type[InputError], remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ``kind``, with ``remedy`` at the end of its sentence, when there is none."""
    try:
        if file.exists() and not file.is_file():
            raise OSError(None, "it is not a file")
        content: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise kind(f"{file} can't be read ({error.strerror or error}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise kind(f"{file} is not valid JSON ({reason}); {remedy}") from error
    if not isinstance(content, dict):
        raise kind(f"{file} must hold a JSON object, not {type(content).__name__}; {remedy}")
    return cast("dict[str, Any]", content)


def cache_folder() -> Path:
    """Return the folder for what can be computed again, ``conditional-detr`` in the user's cache. It may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conditional-detr"
