"""Names of image files in a new data set: they differ from each other on every system, and lead to no other place."""

import re
import unicodedata
from collections import Counter
from pathlib import PurePosixPath

from PIL import Image

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.images import SUFFIXES
from conditional_detr.data.layouts import Split
from conditional_detr.data.writers import Splits

# Characters that XML or a list of one name a line can't hold.
_AWKWARD = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_LONGEST = 240  # bytes of a name without suffix; file systems take 255 with it
_FLAG = re.compile(r"\s(?=-?[01]$)")  # space before what lists of Pascal VOC take for a flag


def tree_names(splits: Splits) -> dict[Split, list[str]]:
    """Return names of images that keep their folders, where these are below the folder of the images."""
    return {split: _tree(data) for split, data in splits.items()}


def _tree(data: Annotations) -> list[str]:
    taken: set[str] = set()
    new: dict[str, str] = {}  # an image that is listed twice remains one file
    for name in data.file_names:
        if name not in new:
            path = PurePosixPath(name)
            below = not path.is_absolute() and ".." not in path.parts
            place = str(path) if below else path.name
            new[name] = _unique(place.removesuffix(path.suffix), path.suffix, taken, whole=True)
    return [new[name] for name in data.file_names]


def flat_names(splits: Splits, shared: bool) -> dict[Split, list[str]]:
    """Return names of images without folders, which differ from each other in more than their suffix.

    An image keeps its name unless another has it too; then its folders become part of it, and its split if ``shared``, which
    tells whether the images of all splits are in one folder.
    """
    paths = {split: [_plain(data, index) for index in range(len(data))] for split, data in splits.items()}
    groups: list[list[Split]] = [list(splits)] if shared else [[split] for split in splits]
    found: dict[Split, list[str]] = {}
    for group in groups:
        counts = Counter(_key(path.stem) for split in group for path in paths[split])
        taken: set[str] = set()
        for split in group:
            first = [split] if shared else []
            names = [
                path.name if counts[_key(path.stem)] == 1 else "_".join([*first, *path.parts]) for path in paths[split]
            ]
            found[split] = [_unique(*_visible(name), taken) for name in names]
    return found


def _plain(data: Annotations, index: int) -> PurePosixPath:
    """Return the name of an image with parts that any layout can hold, and a suffix by which its files are found."""
    name = data.file_names[index]
    parts = [_AWKWARD.sub("_", part) for part in PurePosixPath(name).parts if part not in ("/", "..")]
    stem, suffix = _divided(parts[-1])
    stem = _FLAG.sub("_", stem.strip())
    if suffix.lower() not in SUFFIXES:
        stem, suffix = f"{stem}{suffix}", _suffix_of_content(data, index)
    return PurePosixPath(*parts[:-1], f"{stem or '_'}{suffix}")


def _visible(name: str) -> tuple[str, str]:
    """Return stem and suffix of a name that is not that of a hidden file, which readers leave out, and not too long for a file."""
    stem, suffix = _divided(name)
    stem = stem.encode()[-_LONGEST:].decode(errors="ignore")
    return (f"_{stem[1:]}" if stem.startswith(".") else stem), suffix


def _suffix_of_content(data: Annotations, index: int) -> str:
    with Image.open(data.path(index)) as image:
        suffix = f".{(image.format or '').lower()}"
    return suffix if suffix in SUFFIXES else ".jpg"


def _divided(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return path.stem, path.suffix


def _key(text: str) -> str:
    """Return a form of a name that is equal for names that are one file on some system."""
    return unicodedata.normalize("NFC", text).casefold()


def _unique(stem: str, suffix: str, taken: set[str], whole: bool = False) -> str:
    """Return the name with a number at the end of its stem where that is taken already, and take it.

    whole: whether names that differ in their suffix alone are different.
    """
    number, new = 1, stem
    compared = suffix if whole else ""
    while _key(f"{new}{compared}") in taken:
        number += 1
        new = f"{stem}-{number}"
    taken.add(_key(f"{new}{compared}"))
    return f"{new}{suffix}"
