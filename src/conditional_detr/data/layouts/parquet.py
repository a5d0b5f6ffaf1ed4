"""Read Parquet files of the Hugging Face hub, and unpack the images in them. Needs pyarrow, the extra "parquet"."""

import hashlib
import logging
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from conditional_detr.errors import DataError
from conditional_detr.files import cache_folder
from conditional_detr.strict_json import read_json_text

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_log = logging.getLogger(__name__)
_ROWS = 256  # rows that are converted at once
_IMAGES = 16  # images that are in memory at once, with the pages of the file that hold them
_BUFFER = 2**20  # bytes read at once; otherwise a whole group of rows would be
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 80  # characters of a name that are kept
_IMAGE_NAMES = ("image", "img", "picture", "jpg", "png")


class Parquet:
    """An open Parquet file. Raises ``DataError`` when it can't be read, now or while reading."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with self._told():
            self._opened = _open(file)

    @property
    def columns(self) -> list[str]:
        return list(self._opened.schema_arrow.names)

    def features(self) -> object:
        """Return the description of the columns that the library datasets stores, or None."""
        metadata = cast("dict[bytes, bytes]", self._opened.schema_arrow.metadata or {})
        try:
            return read_json_text(metadata.get(b"huggingface", b"null").decode())
        except ValueError:
            return None

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the place of each row, for messages, and its values in these columns."""
        number = 0
        with self._told():
            for batch in self._opened.iter_batches(_ROWS, columns=list(columns)):
                for values in cast("list[dict[str, Any]]", batch.to_pylist()):
                    number += 1
                    yield f"{self.file}: row {number}", values

    def image_column(self) -> str | None:
        """Return the column with the images, or None if there is none, or several of which none has a usual name."""
        import pyarrow

        def holds_images(kind: Any) -> bool:
            if pyarrow.types.is_struct(kind):
                return kind.get_field_index("bytes") >= 0
            return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

        found = [each.name for each in self._opened.schema_arrow if holds_images(each.type)]
        return found[0] if len(found) == 1 else next((name for name in _IMAGE_NAMES if name in found), None)

    def unpack_images(self, column: str) -> tuple[Path, list[str]]:
        """Write the images to the user's cache, unless they are there, and return their folder and names in order.

        The name of a file is the number of its row and what is harmless of the name in the Parquet file.
        """
        folder = cache_folder() / "parquet" / self._identity()
        names = [_file_name(i, path) for i, path in enumerate(self._paths(column))]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            missing = set(names) - set(os.listdir(folder))
            if missing:
                _log.info("Unpacking %d images of %s to %s", len(missing), self.file, folder)
                self._unpack(column, folder, names, missing)
        except OSError as error:
            raise DataError(
                f"images of {self.file} can't be written to {folder} ({error.strerror or error}); free the disk, or set "
                f"XDG_CACHE_HOME to another folder"
            ) from error
        return folder, names

    def _identity(self) -> str:
        """Return a name for this state of the file: a digest of its path, size and time of change."""
        path = self.file.resolve()
        status = path.stat()
        known = f"{path}|{status.st_size}|{status.st_mtime_ns}"
        return hashlib.sha256(known.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _paths(self, column: str) -> Iterator[str]:
        """Yield the names that the file gives its images; empty texts if it gives none."""
        kind = self._opened.schema_arrow.field(column).type
        if not hasattr(kind, "get_field_index") or kind.get_field_index("path") < 0:
            yield from [""] * self._opened.metadata.num_rows
            return
        for _, values in self.rows([f"{column}.path"]):
            yield str((values[column] or {}).get("path") or "")

    def _unpack(self, column: str, folder: Path, names: Sequence[str], missing: set[str]) -> None:
        """Write the missing images. Groups of rows without any are skipped."""
        row = 0
        for group in range(self._opened.num_row_groups):
            end = row + self._opened.metadata.row_group(group).num_rows
            if not missing.isdisjoint(names[row:end]):
                for content in self._contents(column, group):
                    if names[row] in missing:
                        if not content:
                            raise DataError(f"{self.file}: row {row + 1} holds no image; add it, or remove the row")
                        if not isinstance(content, bytes):
                            raise DataError(
                                f"{self.file}: row {row + 1} has no bytes of an image in {column!r} but {type(content).__name__}; write "
                                f"the content of the image file as binary"
                            )
                        _write(folder / names[row], content)
                    row += 1
            row = end

    def _contents(self, column: str, group: int) -> Iterator[object]:
        with self._told():
            for batch in self._opened.iter_batches(_IMAGES, row_groups=[group], columns=[column]):
                for value in batch.column(0):
                    content: Any = value.as_py()
                    yield content.get("bytes") if isinstance(content, dict) else content

    @contextmanager
    def _told(self) -> Generator[None]:
        """Turn errors of pyarrow into a ``DataError``."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # pyarrow raises many types: ArrowInvalid, OSError, NotImplementedError
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.file} is not a readable Parquet file ({reason}); replace it") from error


def _open(file: Path) -> "ParquetFile":
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(
            f"{file} is a Parquet file, which needs pyarrow: pip install 'conditional-detr[parquet]'"
        ) from error
    if not file.is_file():  # reading from a pipe could block forever
        raise DataError(f"{file} can't be read, because it is no file; replace it")
    return ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)


def _file_name(row: int, path: str) -> str:
    base = PurePosixPath(path.replace("\\", "/")).name
    return "-".join(part for part in (f"{row:07d}", _UNSAFE.sub("_", base)[-_LONGEST_NAME:].lstrip(".")) if part)


def _write(file: Path, content: bytes) -> None:
    """Write a file completely or not at all, also when several processes write it."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
