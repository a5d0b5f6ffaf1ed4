"""Find images that are in a data set twice: equal files, and pictures that look alike. The same pass finds damaged files."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from conditional_detr.data.headers import OnDone
from conditional_detr.data.images import read_image
from conditional_detr.data.splitting import content_digests
from conditional_detr.errors import ImageError

SIDE = 16  # pixels of the gray thumbnails that are compared
ALIKE = 0.98  # correlation of thumbnails from which pictures look alike; unrelated photographs stay below 0.95
_FLAT = 2.0  # standard deviation in 0..255 up to which a thumbnail shows nothing that could be compared
_DECODED = 64  # pixels; minimum sides of the picture that a thumbnail is made from
_CHUNK = 256  # images between two calls of on_done
_MOST = 2**24  # correlations in memory at once


def equal_files(paths: Sequence[Path]) -> list[list[int]]:
    """Return groups of indices whose files have equal content."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, digest in content_digests(list(paths)).items():
        groups[digest].append(index)
    return sorted(group for group in groups.values() if len(group) > 1)


def thumbnails(paths: Sequence[Path], on_done: OnDone | None = None) -> tuple[np.ndarray, dict[int, str]]:
    """Read all of every image. Return thumbnails, float32 ``[images, 256]``, and index -> what is wrong with damaged images.

    A thumbnail has mean 0 and length 1, so that products of thumbnails are correlations. It is 0 where an image is damaged or
    shows nothing.
    """
    found = np.zeros((len(paths), SIDE * SIDE), dtype=np.float32)
    damaged: dict[int, str] = {}

    def read(path: Path) -> np.ndarray | str:
        try:
            image = read_image(path, _DECODED).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        except ImageError as error:
            return str(error)
        return np.asarray(image, dtype=np.float32).ravel()

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _CHUNK):
            for index, pixels in enumerate(pool.map(read, paths[start : start + _CHUNK]), start):
                if isinstance(pixels, str):
                    damaged[index] = pixels
                elif pixels.std() > _FLAT:
                    centered = pixels - pixels.mean()
                    found[index] = centered / np.linalg.norm(centered)
            if on_done is not None:
                on_done(min(start + _CHUNK, len(paths)), len(paths))
    return found, damaged


def alike(thumbnails: np.ndarray) -> list[list[int]]:
    """Return groups of indices of pictures that look alike. thumbnails: as returned by ``thumbnails``.

    Found are copies of another size, format, quality or brightness, and consecutive frames of a video; not found are copies
    that were flipped, turned or cropped by more than a few percent.
    """
    count = len(thumbnails)
    first = np.arange(count)  # of each image: the first one that looks like it
    rows = max(1, _MOST // max(count, 1))
    for start in range(0, count, rows):
        part = thumbnails[start : start + rows]
        close = part @ thumbnails[: start + len(part)].T > ALIKE
        close[np.arange(len(part)), start + np.arange(len(part))] = True  # also a thumbnail of zeros
        first[start : start + rows] = close.argmax(axis=1)
    while (first[first] != first).any():
        first = first[first]
    groups: dict[int, list[int]] = defaultdict(list)
    for index, leader in enumerate(first.tolist()):
        groups[leader].append(index)
    return [group for group in groups.values() if len(group) > 1]
