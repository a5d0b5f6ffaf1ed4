"""Atomic writes: a file is written completely or not at all, and is on disk before anything that relies on it goes."""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError

from conditional_detr.errors import InputError

_CHUNK = 2**20  # bytes
_NOT_SYNCED = (errno.EINVAL, errno.ENOTSUP)  # some network file systems can't sync a folder


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Yield a temporary path in the folder of ``path`` to write to.

    On success it is renamed to ``path``, with the mode of an ordinary new file, and is on disk. On failure it is deleted. An
    ``OSError`` names ``path``, also where safetensors wrote.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        partial.chmod(mode)  # safetensors creates files that only their owner can read
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on disk."""
    folder, windows = path.is_dir(), os.name == "nt"
    if folder and windows:  # which can't open folders
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not folder or error.errno not in _NOT_SYNCED:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file under another name and rename it, so that readers never see a partial file."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def open_regular(file: Path) -> BufferedReader:
    """Open a file to read bytes. Pipes, devices and folders are an ``OSError``, because reading from them may never end."""
    if file.exists() and not stat.S_ISREG(file.stat().st_mode):
        raise OSError(None, "it is not a file")
    return file.open("rb")


def checksum(file: Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_json(file: Path, kind: type[InputError], remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ``kind``, with ``remedy`` at the end of its sentence, when there is none."""
    try:
        with open_regular(file) as stream:
            content: Any = json.loads(stream.read())
    except OSError as error:
        raise kind(f"{file} can't be read ({error.strerror or error}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise kind(f"{file} is not valid JSON ({reason}); {remedy}") from error
    if not isinstance(content, dict):
        raise kind(f"{file} must hold a JSON object, not {type(content).__name__}; {remedy}")
    return cast("dict[str, Any]", content)
