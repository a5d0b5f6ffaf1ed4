"""Find the images that inputs name: folders, patterns, lists, tars and single images, here and in stores."""

import glob
import os
from collections.abc import Iterable, Iterator
from itertools import groupby

from conditional_detr.batch import tars
from conditional_detr.batch.storage import NEEDS, absolute, is_remote, located, opened, protocol_of, reason, told
from conditional_detr.data.images import SUFFIXES, is_url
from conditional_detr.errors import DataError, SettingsError

_LISTS = (".txt", ".parquet")
_COLUMN = "path"
_MAGIC = frozenset("*?[")
_ROWS = 10_000  # of a Parquet list that are converted at once


def list_images(inputs: Iterable[str]) -> list[str]:
    """Return the addresses of the images that ``inputs`` name, sorted, each once.

    An input is a folder, which is searched at any depth for files with the suffix of an image; a glob pattern; a text file
    (``.txt``) with an address in every line; a Parquet file with a column ``path``; a ``.tar``, whose images become
    ``TAR!MEMBER``; or an image. All of them may be URLs of fsspec. Addresses are absolute paths or URLs. What a list names is
    not looked at, so an image that does not exist is found out when it is read.

    All addresses are held in memory. Raises ``SettingsError`` for an input that names nothing or can't be reached, and
    ``DataError`` for a list or tar that can't be read.
    """
    found: list[str] = []
    for text in inputs:
        before = len(found)
        found.extend(_named(text))
        if len(found) == before:
            raise SettingsError(f"{text} names no images; name a folder, pattern, list or tar that holds some")
    for address in {protocol_of(each): each for each in found if is_remote(each) and not is_url(each)}.values():
        located(address)  # a missing package is told before anything is computed
    found.sort()
    return [each for each, _ in groupby(found)]


def _named(text: str) -> Iterator[str]:
    address = absolute(text)
    if is_url(address) or tars.is_member(address):
        return iter([address])
    return _in_store(address) if is_remote(address) else _here(address, text)


def _here(path: str, text: str) -> Iterator[str]:
    """Yield what a path or pattern on this machine names."""
    if os.path.isdir(path):
        yield from _in_folder(path)
    elif os.path.lexists(path):
        yield from _contents(path)
    elif not _MAGIC & set(path):
        raise SettingsError(f"{text} does not exist; correct the path")
    else:
        for match in glob.iglob(path, recursive=True):
            if os.path.isdir(match) and not os.path.islink(match) and "**" not in path:
                yield from _in_folder(match)
            elif not os.path.isdir(match) and _fits(match, path):
                yield from _contents(match)


def _in_folder(folder: str) -> Iterator[str]:
    """Yield the images in a folder at any depth. Links to folders are not followed. Raises ``OSError`` without permission."""

    def stop(error: OSError) -> None:
        raise error  # a list without these images would be taken for complete

    for place, _, names in os.walk(folder, onerror=stop):
        yield from (os.path.join(place, name) for name in names if _suffix(name) in SUFFIXES)


def _in_store(address: str) -> Iterator[str]:
    """Yield what a URL or a pattern of URLs names. Folders are listed one by one, because listings take much memory."""
    address = address.rstrip("/")
    system, path = located(address)
    start = address.removesuffix(path)  # protocol and, where paths have none, the host

    with told(address):
        if _MAGIC & set(path):
            for match in system.glob(path):
                if _fits(match, path) and system.isfile(match):
                    yield from _contents(start + match)
        elif system.isfile(path):
            yield from _contents(address)
        elif not system.isdir(path):
            raise SettingsError(f"{address} does not exist; correct the address")
        else:
            for place, _, names in system.walk(path):
                yield from (f"{start}{place.rstrip('/')}/{name}" for name in names if _suffix(name) in SUFFIXES)
                system.invalidate_cache(place)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _fits(match: str, pattern: str) -> bool:
    """Tell whether a match of a pattern counts: images and tars, and lists for a pattern that ends as they do."""
    suffix = _suffix(match)
    return suffix in SUFFIXES or suffix == tars.SUFFIX or (suffix in _LISTS and suffix == _suffix(pattern))


def _contents(address: str) -> Iterator[str]:
    """Yield what a file stands for: the images in a list or tar, or itself."""
    if address.lower().endswith(tars.COMPRESSED):
        raise DataError(f"{address} is a compressed tar, whose members can't be read one by one; unpack it to a .tar")
    suffix = _suffix(address)
    if suffix in (*_LISTS, tars.SUFFIX):
        with told(address):
            if suffix == tars.SUFFIX:
                yield from tars.image_members(address)
            else:
                yield from map(absolute, _lines(address) if suffix == ".txt" else _column(address))
    else:
        yield address


def _lines(address: str) -> Iterator[str]:
    with opened(address) as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{address}, line {number} is not text in UTF-8; save the list in UTF-8") from error
            if text.strip():
                yield text


def _column(address: str) -> Iterator[str]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SettingsError(f"{address} is a Parquet list, which is read with pyarrow: {NEEDS}") from error
    with opened(address) as file:
        try:
            parquet = ParquetFile(file)
            names = parquet.schema_arrow.names
            if _COLUMN not in names:
                raise DataError(
                    f"{address} has no column {_COLUMN!r} but {', '.join(names)}; rename the one with the paths"
                )
            for batch in parquet.iter_batches(_ROWS, columns=[_COLUMN]):
                for value in batch.column(0).to_pylist():
                    if not isinstance(value, str) or not value:
                        raise DataError(f"{address} has {value!r} in the column {_COLUMN!r}; write a path in every row")
                    yield value
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk or the store
            raise DataError(f"{address} is damaged or no Parquet file ({reason(error)}); replace it") from error
