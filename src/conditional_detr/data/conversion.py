"""Write a data set in another layout: annotations by a writer, and its images as copies or links."""

import os
import shutil
from pathlib import Path
from typing import Literal

from conditional_detr.config import DataSettings
from conditional_detr.data.headers import OnDone
from conditional_detr.data.writers import ImageNames, Splits, load
from conditional_detr.data.writers.names import flat_names, tree_names
from conditional_detr.errors import DataError
from conditional_detr.files import is_free, whole_folder

Images = Literal["copy", "link", "none"]

_ROUNDING = 0.001  # part of the area of a box that its area may differ by
_TURNED = ("turned", "turned_raw", "maybe_turned")


def check_new(out: Path) -> None:
    """Raise ``DataError`` unless ``out`` is a new or empty folder."""
    if not is_free(out):
        raise DataError(f"{out} exists and is not an empty folder; name a new one")


def check_outside(out: Path, settings: DataSettings) -> None:
    """Raise ``DataError`` when ``out`` is in a folder of the data, where images may later be taken for part of it."""
    for place in (settings.root, settings.train_images, settings.val_images):
        if place is None or not place.exists():
            continue
        folder = place if place.is_dir() else place.parent
        if folder.resolve() in (out.resolve(), *out.resolve().parents):
            raise DataError(
                f"{out} is inside the data set {folder}, and may be taken for part of it; name another place"
            )


def write_data(
    splits: Splits, out: Path, layout: str, images: Images = "copy", on_image: OnDone | None = None
) -> list[str]:
    """Write a data set into a new folder, completely or not at all. Return sentences about what the layout can't hold.

    splits: with equal categories. layout: a name in ``WRITERS``. images: "copy"; "link" for hard links, or symbolic ones where
    the file system has no others; "none" to write annotations only. on_image: called with the number of images done and of
    all. Raises ``DataError`` when ``out`` is not a new or empty folder, and for categories that the layout can't hold.
    """
    check_new(out)
    writer = load(layout)
    shared = writer.IMAGES.format(split="") == writer.IMAGES
    names = flat_names(splits, shared) if writer.FLAT else tree_names(splits)
    total, done = sum(map(len, splits.values())), 0
    with whole_folder(out) as folder:
        notes = writer.write(folder, splits, names)
        for split, data in splits.items() if images != "none" else ():
            for i, name in enumerate(names[split]):
                target = folder / writer.IMAGES.format(split=split) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _place(data.path(i), target, images)
                done += 1
                if on_image is not None:
                    on_image(done, total)
    return [*notes, *_lost(splits, layout), *_renamed(splits, names)]


def _place(source: Path, target: Path, images: Images) -> None:
    if target.exists():  # an image that is listed twice
        return
    if images == "copy":
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without hard links
        target.symlink_to(source.resolve())


def _lost(splits: Splits, layout: str) -> list[str]:
    """Return sentences about what is lost in any layout but COCO, and in all."""
    notes: list[str] = []
    areas = 0
    for data in splits.values():
        of_boxes = data.boxes[:, 2] * data.boxes[:, 3]
        areas += int((data.usable & (abs(data.areas - of_boxes) > _ROUNDING * of_boxes)).sum())
    if areas and layout != "coco":
        notes.append(
            f"areas of {areas} objects differ from those of their boxes and are not kept, which changes AP by size"
        )
    if any(data.source.suffix == ".json" for data in splits.values()):
        notes.append("outlines (segmentation), keypoints and attributes, if there are any, are not kept")
    turned = [problem for data in splits.values() for problem in data.problems if problem.kind in _TURNED]
    if turned:
        count = sum(problem.count for problem in turned)
        notes.append(
            f"{count} images keep their EXIF orientation; boxes refer to the upright images, as viewers show them"
        )
    return notes


def _renamed(splits: Splits, names: ImageNames) -> list[str]:
    """Return a sentence about images that have another name than before."""
    pairs = [pair for split, data in splits.items() for pair in zip(data.file_names, names[split], strict=True)]
    changed = [(old, new) for old, new in pairs if old != new]
    if not changed:
        return []
    return [f"{len(changed)} images have another name or place, such as {changed[0][0]!r}, now {changed[0][1]!r}"]
