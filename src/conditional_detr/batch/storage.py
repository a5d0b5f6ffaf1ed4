"""Files on this machine and in stores that fsspec reaches, by their address: a path or a URL such as ``s3://bucket/key``."""

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from conditional_detr.errors import InputError, RunError, SettingsError
from conditional_detr.files import sync

NEEDS = "pip install 'conditional-detr[batch]'"
PARTIAL = ".partial"  # end of the names of files that are being written
_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})  # stores that put objects whole
_DRIVERS = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hdfs": "pyarrow",
    "sftp": "paramiko",
}


@runtime_checkable
class FileSystem(Protocol):
    """What is used of a file system of fsspec, which has no types of its own."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any: ...
    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes: ...
    def pipe_file(self, path: str, value: bytes) -> None: ...
    def mv(self, path1: str, path2: str) -> None: ...
    def rm_file(self, path: str) -> None: ...
    def ls(self, path: str, detail: bool = True) -> list[str]: ...
    def glob(self, path: str) -> list[str]: ...
    def walk(self, path: str) -> Generator[tuple[str, list[str], list[str]]]: ...
    def isdir(self, path: str) -> bool: ...
    def isfile(self, path: str) -> bool: ...
    def makedirs(self, path: str, exist_ok: bool = False) -> None: ...
    def invalidate_cache(self, path: str | None = None) -> None: ...


def absolute(address: str) -> str:
    """Return an address that means the same in every folder: an absolute path without ``file://``, or a URL as it is."""
    if address.startswith(("file://", "local://")):
        address = address.partition("://")[2]
    return address if "://" in address else os.path.abspath(address)


def is_remote(address: str) -> bool:
    """Tell whether an absolute address is in a store rather than a file of this machine."""
    return "://" in address


def protocol_of(address: str) -> str:
    return address.partition("://")[0].lower() if is_remote(address) else "file"


def located(address: str) -> tuple[FileSystem, str]:
    """Return the file system of a URL and the path in it. Raises ``SettingsError`` when its package is not installed."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise SettingsError(f"{address} is read with fsspec: {NEEDS}") from error
    try:
        system, path = url_to_fs(address)
    except ImportError as error:
        driver = _DRIVERS.get(protocol_of(address))
        remedy = f"pip install {driver}" if driver else str(error)
        raise SettingsError(f"{address} needs a package that is not installed: {remedy}") from error
    except ValueError as error:
        raise SettingsError(
            f"{address} can't be opened ({error}); give a path, or a URL with file, s3, gs or another protocol of fsspec"
        ) from error
    except Exception as error:  # credentials and settings that a driver can't read; each has its own types
        raise _unreachable(address, error) from error
    return cast(FileSystem, system), str(path)


@contextmanager
def told(address: str) -> Generator[None]:
    """Let what a store raises in the block end as one sentence: ``SettingsError``. Errors of this machine's files stay."""
    try:
        yield
    except (InputError, RunError, MemoryError):
        raise
    except Exception as error:  # drivers raise types of their own: botocore's, aiohttp's, Google's
        if not is_remote(address):
            raise
        if not isinstance(error, FileNotFoundError):
            raise _unreachable(address, error) from error
        raise SettingsError(f"{address} does not exist; correct the address") from error


def _unreachable(address: str, error: Exception) -> SettingsError:
    return SettingsError(
        f"{address} can't be reached ({reason(error)}); check the address, the network and the credentials"
    )


def reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def read(address: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of a file, or those from ``start`` to ``end``."""
    if is_remote(address):
        system, path = located(address)
        return system.cat_file(path, start=start, end=end)  # by name: some drivers have others in between
    with open(address, "rb") as file:
        file.seek(start or 0)
        return file.read(-1 if end is None else end - (start or 0))


def opened(address: str) -> Any:
    """Open a file to read bytes in order. Files of fsspec have no common type."""
    if is_remote(address):
        system, path = located(address)
        return system.open(path, "rb")
    return open(address, "rb")


def write_whole(address: str, content: bytes, *, replace: bool = True) -> None:
    """Write a file so that it is never seen half-written: under a temporary name of this call, and then moved.

    replace: False to keep a file that another process wrote first, where the file system can tell.
    """
    system, path = located(address)
    folder, _, name = path.rpartition("/")
    partial = f"{folder}/.{name}.{uuid.uuid4().hex}{PARTIAL}"
    if not is_remote(address):
        os.makedirs(folder, exist_ok=True)
        _write_here(path, partial, content, replace)
        return
    with told(address):
        if protocol_of(address) in _ATOMIC:
            system.pipe_file(path, content)
            return
        system.makedirs(folder, exist_ok=True)
        system.pipe_file(partial, content)
        system.mv(partial, path)


def _write_here(path: str, partial: str, content: bytes, replace: bool) -> None:
    """Write a file of this machine. An ``OSError`` names ``path``."""
    try:
        with open(partial, "xb") as file:
            file.write(content)
        sync(Path(partial))
        if replace:
            os.replace(partial, path)
        else:
            _link(partial, path)
        sync(Path(path).parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), path) from error
    finally:
        Path(partial).unlink(missing_ok=True)


def _link(partial: str, path: str) -> None:
    """Give a file its name, unless another file has it."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        os.replace(partial, path)
