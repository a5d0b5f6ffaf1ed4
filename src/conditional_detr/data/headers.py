"""Read the size and EXIF orientation of many image files from their headers, and remember them between runs."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from conditional_detr.data.images import read_header
from conditional_detr.errors import ImageError
from conditional_detr.files import cache_folder, write_text

QUARTER_TURNS = (5, 6, 7, 8)  # orientations that exchange height and width
REMEMBERED_FROM = 1000  # images; fewer are read again in less than a second
_THREADS = 16  # for disks in a network; a local disk gains nothing
_CHUNK = 256

OnDone = Callable[[int, int], None]  # number of images done, number of images


@dataclass(frozen=True)
class Headers:
    """Headers of images. sizes: int32 ``[images, 2]``, (height, width) as stored, in pixels; 0 for an unreadable file.

    orientations: uint8 ``[images]``, EXIF orientation 1 to 8, where 1 is upright. unreadable: index -> what is wrong.
    """

    sizes: np.ndarray
    orientations: np.ndarray
    unreadable: dict[int, str]

    @property
    def upright(self) -> np.ndarray:
        """Sizes after rotation by the EXIF orientation, int32 ``[images, 2]``."""
        turned = np.isin(self.orientations, QUARTER_TURNS)[:, None]
        return np.where(turned, self.sizes[:, ::-1], self.sizes)

    def without(self, left_out: np.ndarray) -> "Headers":
        """Return the headers without some of the images, and all that are unreadable. left_out: bool ``[images]``."""
        return Headers(self.sizes[~left_out], self.orientations[~left_out], {})


def read_headers(folder: Path, names: Sequence[str], on_done: OnDone | None = None) -> Headers:
    """Return the headers of image files. Those of large data sets are remembered by name, size and time of change."""
    cache = _Cache(folder) if len(names) >= REMEMBERED_FROM else None

    def header(name: str) -> tuple[int, int, int] | str:
        path = folder / name
        try:
            known = cache and cache.get(name, path)
            if known:
                return known
            found = read_header(path)
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"{path} can't be read ({error.strerror or error})"
        if cache:
            cache.put(name, path, found)
        return found

    sizes = np.zeros((len(names), 2), dtype=np.int32)
    orientations = np.ones(len(names), dtype=np.uint8)
    unreadable: dict[int, str] = {}
    with ThreadPoolExecutor(_THREADS, "headers") as pool:
        for start in range(0, len(names), _CHUNK):
            for i, found in enumerate(pool.map(header, names[start : start + _CHUNK]), start):
                if isinstance(found, str):
                    unreadable[i] = found
                else:
                    sizes[i], orientations[i] = found[:2], found[2]
            if on_done is not None:
                on_done(min(start + _CHUNK, len(names)), len(names))
    if cache:
        cache.save()
    return Headers(sizes, orientations, unreadable)


class _Cache:
    """Headers of the images in a folder, in a file of the user's cache. A damaged or unwritable file is no fault."""

    def __init__(self, folder: Path) -> None:
        digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        self.file = cache_folder() / "headers" / f"{digest}.json"
        self.changed = False
        try:
            content: Any = json.loads(self.file.read_bytes())
            self.known = cast("dict[str, list[int]]", content if isinstance(content, dict) else {})
        except (OSError, ValueError, RecursionError):
            self.known = {}

    def get(self, name: str, path: Path) -> tuple[int, int, int] | None:
        known: Any = self.known.get(name)
        if (
            not isinstance(known, list)
            or len(cast("list[Any]", known)) != 5
            or not all(type(value) is int for value in cast("list[Any]", known))
        ):
            return None
        size, time, height, width, orientation = cast("list[int]", known)
        status = path.stat()
        fits = (status.st_size, status.st_mtime_ns) == (size, time)
        sane = 0 < height < 2**31 and 0 < width < 2**31 and 1 <= orientation <= 8
        return (height, width, orientation) if fits and sane else None

    def put(self, name: str, path: Path, header: tuple[int, int, int]) -> None:
        status = path.stat()
        self.known[name] = [status.st_size, status.st_mtime_ns, *header]
        self.changed = True

    def save(self) -> None:
        if not self.changed:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps(self.known))
        except OSError:
            return
