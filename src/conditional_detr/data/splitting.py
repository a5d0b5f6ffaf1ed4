"""Split images into training and validation images, the same way every time, with copies of an image on one side."""

import hashlib
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from conditional_detr.data.annotations import Annotations
from conditional_detr.errors import DataError

# Roboflow's exports name the augmented copies of an image cat_jpg.rf.0123456789abcdef0123456789abcdef.jpg.
_ROBOFLOW = re.compile(r"\.rf\.[0-9A-Za-z]{16,}$")


def held_out(data: Annotations, fraction: float) -> np.ndarray:
    """Return which images are held out for validation, bool ``[images]``.

    The choice depends on the names and contents of the files alone. Files of equal content, and Roboflow's augmented copies of
    an image, stay together. At least one image is held out and one is left; raises ``DataError`` when that is impossible.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(groups_of_copies(data)):
        members[key].append(index)
    if len(members) < 2:
        raise DataError(
            f"data.val_fraction can't split {data.source}: it has one image, or copies of one; add images or set data.val=none"
        )
    wanted = min(max(round(fraction * len(data)), 1), len(data) - 1)
    held = np.zeros(len(data), dtype=bool)
    for group in sorted(members.values(), key=lambda group: hashlib.sha256(_base(data, group[0])).digest()):
        if held.sum() + len(group) <= wanted:
            held[group] = True
    if not held.any():
        held[min(members.values(), key=len)] = True
    return held


def _base(data: Annotations, index: int) -> bytes:
    return PurePosixPath(data.file_names[index]).name.encode("utf-8", "surrogatepass")


def groups_of_copies(data: Annotations) -> list[str]:
    """Return a key per image, equal for files of equal content and for Roboflow's augmented copies of an image."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    names = [str(PurePosixPath(name).with_suffix("")) for name in data.file_names]
    keys = [f"name {_ROBOFLOW.sub('', name)}" for name in names]
    for index, digest in content_digests([data.path(i) for i in range(len(data))]).items():
        parent[root(keys[index])] = root(f"content {digest}")
    return [root(key) for key in keys]


def content_digests(paths: list[Path]) -> dict[int, str]:
    """Return digests of the files that may be copies of another: those whose size in bytes occurs more than once."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        by_size[path.stat().st_size].append(index)
    found: dict[int, str] = {}
    for indices in by_size.values():
        if len(indices) > 1:
            for index in indices:
                found[index] = hashlib.sha256(paths[index].read_bytes()).hexdigest()
    return found


def shared_images(train: Annotations, val: Annotations) -> list[int]:
    """Return the indices of validation images whose files equal a training image."""
    paths = [data.path(i) for data in (train, val) for i in range(len(data))]
    digests = content_digests(paths)
    of_training = {digest for index, digest in digests.items() if index < len(train)}
    return [index - len(train) for index, digest in digests.items() if index >= len(train) and digest in of_training]
