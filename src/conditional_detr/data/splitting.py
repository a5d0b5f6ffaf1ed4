"""Split images into training and validation images, the same way every time, with copies of an image on one side."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
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


# --- any number of parts, by category ---


def divided(data: Annotations, fractions: Sequence[float], seed: int) -> list[Annotations]:
    """Divide images into parts of these fractions, which sum to 1.

    Copies of an image stay together, as in ``held_out``. Categories are divided one by one, the rarest first: each of their
    images goes to the part that lacks most images of the category (iterative stratification; Sechidis et al., 2011). A
    category with at least as many images as parts is in all parts, unless rarer ones in the same images prevent that; with
    fewer, the largest parts come first. The result depends on names, contents and categories of the images and the seed alone.

    Raises ``DataError`` when there are fewer images, or groups of copies, than parts.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(groups_of_copies(data)):
        members[key].append(index)
    if len(members) < len(fractions):
        raise DataError(
            f"{data.source} can't be divided into {len(fractions)} parts: it has {len(members)} images, with copies of an image "
            f"counted once; add images"
        )
    groups = sorted(
        members.values(), key=lambda group: hashlib.sha256(b"%d %s" % (seed, _base(data, group[0]))).digest()
    )
    part_of = _stratified(_categories_shown(data, groups), np.array([*map(len, groups)]), np.array(fractions))
    for part in range(len(fractions)):
        if not (part_of == part).any():
            part_of[np.flatnonzero(part_of == np.bincount(part_of).argmax())[-1]] = part
    chosen = [
        sorted(i for group, at in zip(groups, part_of, strict=True) if at == part for i in group)
        for part in range(len(fractions))
    ]
    return [data.subset(indices) for indices in chosen]


def _categories_shown(data: Annotations, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Return which categories each group shows, bool ``[groups, categories + 1]``. The last one stands for no objects."""
    group_of = np.zeros(len(data), dtype=np.int64)
    for number, group in enumerate(groups):
        group_of[group] = number
    shown = np.zeros((len(groups), len(data.categories) + 1), dtype=bool)
    shown[group_of[data.owners[data.usable]], data.labels[data.usable]] = True
    shown[:, -1] = ~shown.any(axis=1)
    return shown


def _stratified(shown: np.ndarray, sizes: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Return the part of each group. shown: as of ``_categories_shown``. sizes: number of images in each group."""
    part_of = np.full(len(shown), -1)
    wanted = fractions[:, None] * (shown * sizes[:, None]).sum(axis=0)  # images of each category that each part lacks
    room = fractions * sizes.sum()  # images that each part lacks
    present = np.zeros_like(wanted, dtype=bool)
    while (part_of < 0).any():
        left = shown[part_of < 0].sum(axis=0)
        category = int(np.where(left > 0, left, len(shown) + 1).argmin())
        waiting = np.flatnonzero((part_of < 0) & shown[:, category]).tolist()
        for remaining, group in zip(range(len(waiting), 0, -1), waiting, strict=True):
            lacking = ~present[:, category]
            scarce = remaining <= lacking.sum()
            rank = (fractions, lacking) if scarce else (fractions, room, wanted[:, category])
            part = int(np.lexsort(rank)[-1])
            part_of[group] = part
            present[part] |= shown[group]
            wanted[part] -= shown[group] * sizes[group]
            room[part] -= sizes[group]
    return part_of


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
