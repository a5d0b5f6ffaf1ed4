"""Fingerprints of data sets, by which a resumed run tells that its data changed."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from conditional_detr.data.annotations import Annotations
from conditional_detr.record import Categories

# Columns of a split. The content of image files is not read; another content nearly always has another number of bytes.
_COLUMNS = ("another name, size or place in the list", "other boxes, categories or crowds", "another image file")
_SPLITS = {"train": "training", "val": "validation"}
Fingerprint = Mapping[str, Tensor]


def fingerprint(train: Annotations, val: Annotations | None) -> Fingerprint:
    """Return what two readings of the same data share, whatever the place of the files.

    ``train`` and ``val``: int64 ``[images, 3]``, a hash of name, id and size, a hash of the objects, and the bytes of the image
    file (-1 without a file). ``categories``: int64 ``[categories]``, a hash of id and name.
    """
    found = {"categories": _categories(train.categories), "train": _images(train)}
    return found if val is None else {**found, "val": _images(val)}


def check_fingerprint(found: Fingerprint) -> None:
    """Raise ``LookupError`` or ``ValueError`` for tensors that ``fingerprint`` does not return."""
    for name in ("categories", "train", *(["val"] if "val" in found else [])):
        value, columns = found[name], len(_COLUMNS) if name in _SPLITS else None
        shape = [len(value) if value.ndim else 0, *([columns] if columns else [])]
        if value.dtype != torch.int64 or list(value.shape) != shape:
            raise ValueError(f"{name} is {value.dtype} {list(value.shape)}")


def changed_categories(before: Fingerprint, now: Categories) -> list[str]:
    """Return the names of the categories whose id or name is another than in an earlier fingerprint, in which they are as many."""
    rows = (before["categories"] != _categories(now)).nonzero().flatten()
    return [now.names[row] for row in rows.tolist()]


def changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Return what changed in the images of each split, in parts of a sentence with the number of images."""
    found: list[str] = []
    for split, name in _SPLITS.items():
        old, new = (each.get(split, torch.empty(0, len(_COLUMNS), dtype=torch.int64)) for each in (before, now))
        if len(old) != len(new):
            found.append(f"{len(new)} instead of {len(old)} {name} images")
            continue
        counts: list[int] = (old != new).sum(0).tolist()
        found += [
            f"{count} of {len(new)} {name} images have {what}"
            for count, what in zip(counts, _COLUMNS, strict=True)
            if count
        ]
    return found


def _categories(categories: Categories) -> Tensor:
    pairs = zip(categories.ids, categories.names, strict=True)
    return torch.tensor([_hash(repr(pair).encode()) for pair in pairs], dtype=torch.int64)


def _images(data: Annotations) -> Tensor:
    rows = np.empty((len(data), len(_COLUMNS)), dtype=np.int64)
    for i, (name, image_id) in enumerate(zip(data.file_names, data.image_ids, strict=True)):
        objects = data.objects(i)
        parts = (data.boxes[objects], data.labels[objects], data.crowd[objects])
        rows[i] = (
            _hash(name.encode("utf-8", "surrogatepass"), image_id.tobytes(), data.sizes[i].tobytes()),
            _hash(*(part.tobytes() for part in parts)),
            _bytes(data, i),
        )
    return torch.from_numpy(rows)


def _bytes(data: Annotations, index: int) -> int:
    try:
        return data.path(index).stat().st_size
    except OSError:  # reported when the image is read
        return -1


def _hash(*parts: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(b"\0".join(parts), digest_size=8).digest(), "little", signed=True)
