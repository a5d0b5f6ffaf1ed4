"""Write the YOLO layout: a data.yaml, and a label file per image with fractions of its size."""

from pathlib import Path

import numpy as np

from conditional_detr.config.core_yaml import write_yaml
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.writers import ImageNames, Splits

IMAGES = "images/{split}"
FLAT = True


def write(out: Path, splits: Splits, names: ImageNames) -> list[str]:
    categories = next(iter(splits.values())).categories
    folders = {split: IMAGES.format(split=split) for split in splits}
    content = {**folders, "nc": len(categories), "names": list(categories.names)}
    (out / "data.yaml").write_text(write_yaml(content), encoding="utf-8")
    clipped = 0
    for split, data in splits.items():
        folder = out / "labels" / split
        folder.mkdir(parents=True)
        fractions, changed = _fractions(data)
        clipped += changed
        for i, name in enumerate(names[split]):
            rows = range(*data.objects(i).indices(len(data.labels)))
            lines = [
                f"{data.labels[row]} {' '.join(map(repr, fractions[row].tolist()))}\n"
                for row in rows
                if data.usable[row]
            ]
            (folder / Path(name).with_suffix(".txt")).write_text("".join(lines), encoding="utf-8")
    notes: list[str] = []
    if categories.ids != tuple(range(len(categories))):
        ids, last = categories.ids, len(categories) - 1
        notes.append(f"YOLO numbers categories from 0: ids {ids[0]} to {ids[-1]} become 0 to {last}")
    if crowds := sum(int(data.crowd.sum()) for data in splits.values()):
        notes.append(f"YOLO has no crowds: {crowds} are left out")
    if unusable := sum(int((~data.usable & ~data.crowd).sum()) for data in splits.values()):
        notes.append(f"{unusable} boxes without area in their image are left out, because YOLO tools refuse them")
    if clipped:
        notes.append(
            f"{clipped} boxes reach so far beyond their image that YOLO tools refuse them, and are clipped to it"
        )
    return notes


def _fractions(data: Annotations) -> tuple[np.ndarray, int]:
    """Return center x, center y, width and height as fractions, float64 ``[objects, 4]``, and the number of clipped boxes.

    Boxes are clipped only where a number would be outside of 0..1, so that others can be read without loss.
    """
    sizes = data.sizes[data.owners][:, [1, 0]].astype(np.float64)
    first, last = data.boxes[:, :2] / sizes, (data.boxes[:, :2] + data.boxes[:, 2:]) / sizes
    found = np.concatenate([(first + last) / 2, data.boxes[:, 2:] / sizes], axis=1)
    clipped = data.usable & ((found < 0) | (found > 1)).any(axis=1)
    first, last = first[clipped].clip(0, 1), last[clipped].clip(0, 1)
    found[clipped] = np.concatenate([(first + last) / 2, last - first], axis=1)
    return found, int(clipped.sum())
