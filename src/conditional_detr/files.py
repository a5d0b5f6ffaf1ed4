"""Atomic writes, where a file or folder is written completely or not at all and is on disk before what relies on it, and careful reading."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError

from conditional_detr.errors import InputError
from conditional_detr.strict_json import JSONError, read_json_text

_CHUNK = 2**20  # bytes
_PARTIAL = ".partial"  # end of the names of files and folders that are being written
_NOT_SYNCED = (errno.EINVAL, errno.ENOTSUP)  # some network file systems can't sync a folder


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Yield a temporary path in the folder of ``path`` to write to.

    On success it is renamed to ``path``, with the mode of an ordinary new file, and is on disk. On failure it is deleted. An
    ``OSError`` names ``path``, also where safetensors wrote.
    """
    partial = path.with_name(f".{path.name}{_PARTIAL}")
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


def is_free(path: Path) -> bool:
    """Tell whether a path does not exist, or is a folder without anything but what a killed program left half-written."""
    if not os.path.lexists(path):
        return True
    return path.is_dir() and all(each.name == _PARTIAL for each in path.iterdir())


@contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """Yield a temporary folder to write to. ``path`` must be free, as ``is_free`` tells.

    On success it is renamed to ``path``, or its contents are moved there, because an empty folder may be a mounted disk or the
    current folder. On failure all is deleted.
    """
    existed = path.exists()
    partial = path / _PARTIAL if existed else path.with_name(f".{path.name}{_PARTIAL}")
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


def checksum(file: Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_json(file: Path, kind: type[InputError], remedy: str, *, finite: bool = True) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ``kind``, with ``remedy`` at the end of its sentence, when there is none.

    finite: False to take NaN and infinity. The text is in UTF-8, or in UTF-16 or UTF-32 as Python's reader recognizes them.
    """
    try:
        content = read_json_text(_text_of_object(file), finite=finite)
    except OSError as error:
        raise kind(f"{file} can't be read ({error.strerror or error}); {remedy}") from error
    except MemoryError as error:
        raise kind(f"{file} takes more memory than this process has; {remedy}") from error
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is not text in {error.encoding}"
        raise kind(f"{file} is not valid JSON ({reason}); {remedy}") from error
    except JSONError as error:
        raise kind(f"{file} is not valid JSON ({error}); {remedy}") from error
    except _NoObjectError as error:
        raise kind(f"{file} must hold a JSON object, but it {error}; {remedy}") from error
    except ValueError as error:  # a name that no file can have
        raise kind(f"{file} can't be read ({error}); {remedy}") from error
    return cast("dict[str, Any]", content)  # it begins with a brace


class _NoObjectError(ValueError):
    """File that does not begin as a JSON object. The message says what it does instead."""


def _text_of_object(file: Path) -> str:
    """Read the text of a JSON file. Raise ``_NoObjectError`` when it does not begin as an object, without reading on."""
    with open_regular(file) as stream:
        start = stream.read(1000)
        encoding = json.detect_encoding(start)
        visible = start.decode(encoding, "replace").strip()
        if start.startswith((b"\x1f\x8b", b"PK\3\4")):
            raise _NoObjectError("is compressed")
        if visible[:1] != "{":
            raise _NoObjectError(f"begins with {visible[:20]!r}" if visible else "is empty")
        size = os.fstat(stream.fileno()).st_size
        if size * _MEMORY_PER_BYTE > _memory():
            raise OSError(None, f"its {size / 2**30:.0f} GiB need more memory than this machine has")
        stream.seek(0)
        return stream.read().decode(encoding)


_MEMORY_PER_BYTE = 4  # at least, for the text and its values; annotation files of COCO take five to six


def _memory() -> float:
    """Return the memory of this machine in bytes, or infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


def open_regular(file: Path) -> BufferedReader:
    """Open a file to read bytes. Raises ``OSError`` for pipes, devices and folders too, because reading may never end."""
    if file.exists() and not stat.S_ISREG(file.stat().st_mode):
        raise OSError(None, "it is not a file")
    return file.open("rb")


def lines_of(file: Path, longest: int) -> Generator[bytes | None]:
    """Yield the lines of a file without their ends; None for a line of more than ``longest`` bytes, which is not kept."""
    with open_regular(file) as stream:
        while line := stream.readline(longest):
            whole = line.endswith(b"\n") or len(line) < longest
            yield line.rstrip(b"\r\n") if whole else None
            while not whole:
                rest = stream.readline(longest)
                whole = rest.endswith(b"\n") or len(rest) < longest


def cache_folder() -> Path:
    """Return the folder for what can be computed again, ``conditional-detr`` in the user's cache. It may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conditional-detr"
