"""Read a data set: choose the layout, compare what its files list with the images, and split off validation images."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.headers import QUARTER_TURNS, Headers, OnDone, read_headers
from conditional_detr.data.hub import download
from conditional_detr.data.layouts import LAYOUTS, SPLITS, Layout, Split, load
from conditional_detr.data.layouts.coco import read_file
from conditional_detr.data.listing import Listing
from conditional_detr.data.splitting import held_out
from conditional_detr.errors import DataError

MANY_CROWDS = 0.2  # part of the annotations from which crowds are a warning; COCO has 0.012
MANY_BEYOND = 0.1  # part of the boxes beyond their image from which they are tested for being corners
_FOLDERS = 100  # below a root without data that are searched for some
LARGEST = 1e9  # pixels; no coordinate is as large
_DECIMALS = 6  # of pixels, for boxes given as fractions: removes the rounding error of the multiplication


def read_split(settings: DataSettings, split: Split, on_header: OnDone | None = None) -> Annotations:
    """Read the annotations of a split, and the headers of its images.

    settings: the section ``data`` of settings, which names the files. split: "train", "val" or "test". on_header: called with the number of headers read and of all. Raises ``DataError`` for invalid or missing annotations,
    for images that are missing, unreadable or of another size, and with ``data.strict`` for any problem that is a warning.
    """
    if split == "val" and settings.val == "none":
        raise DataError("data.val=none says that there is no validation data; leave it out to evaluate")
    if settings.val_fraction and split != "test":
        if settings.val_annotations is not None or settings.val == "none":
            other = "data.val=none" if settings.val == "none" else "data.val_annotations"
            raise DataError(f"data.val_fraction holds out training images, which contradicts {other}; leave out one")
        whole = _read(settings, "train", on_header)
        held = held_out(whole, settings.val_fraction)
        found = whole.subset(np.flatnonzero(held if split == "val" else ~held))
    else:
        found = _read(settings, split, on_header)
    if settings.strict:
        refuse_problems(problem for problem in found.problems if problem.level == "warning")
    return found


def refuse_problems(warnings: Iterable[object]) -> None:
    """Raise ``DataError`` with the first of the warnings, if there are any, for ``data.strict``."""
    found = [str(warning) for warning in warnings]
    if found:
        more = f" (and {len(found) - 1} more warnings)" if len(found) > 1 else ""
        raise DataError(f"data.strict=true refuses this data: {found[0]}{more}")


def read_coco(file: Path, folders: Sequence[Path]) -> Annotations:
    """Read a COCO annotation file whose images are in one of ``folders``, the first preferred. Raises ``DataError``."""
    return annotations_from(read_file(file, [[folder] for folder in folders]), DataSettings())


def _read(settings: DataSettings, split: Split, on_header: OnDone | None) -> Annotations:
    settings = _downloaded(settings)
    return annotations_from(choose_layout(settings, split).read(settings, split), settings, on_header)


def _downloaded(settings: DataSettings) -> DataSettings:
    """Return the settings with the folder of a data set on the hub as root."""
    if settings.hub is None:
        return settings
    return settings.model_copy(update={"root": download(settings.hub)})


def choose_layout(settings: DataSettings, split: Split) -> Layout:
    """Return the layout of a split. Raises ``DataError`` when none fits and when several do."""
    root = settings.root
    if settings.files_of(split)[0] is not None:
        return load("coco")
    if root is None:
        raise DataError(
            f"no data: set data.root to a folder, data.hub to a name on the Hugging Face hub, or data.{split}_annotations and "
            f"data.{split}_images"
        )
    if not root.exists():
        raise DataError(f"data.root {root} does not exist; give the folder of the data set, or a YOLO data.yaml")
    names = _layouts(settings)
    found = _recognized(settings, split)
    if len(found) > 1:
        raise DataError(
            f"{root} has {split} annotations in several layouts: {' and '.join(found)}; "
            f"choose with data.layout={' or data.layout='.join(found)}"
        )
    if not found:
        looked = "; ".join(f"{name}: {load(name).LOOKED_FOR}" for name in names)
        remedy = f"set data.{split}_annotations" if split != "test" else "choose another split"
        if split == "val":
            remedy += ", or data.val_fraction=0.1 to hold out training images, or data.val=none to train without"
        if below := _data_below(root, settings):
            remedy = f"set data.root={below}, which holds some"
        raise DataError(f"{root} holds no {split} annotations (looked for {looked}); {remedy}")
    return load(found[0])


def _layouts(settings: DataSettings) -> tuple[str, ...]:
    return LAYOUTS if settings.layout == "auto" else (settings.layout,)


def _recognized(settings: DataSettings, split: Split) -> list[str]:
    """Return the layouts in which ``root`` contains a split."""
    root = settings.root
    return [] if root is None else [name for name in _layouts(settings) if load(name).recognize(root, split)]


def _data_below(root: Path, settings: DataSettings) -> Path | None:
    """Return the first subfolder that contains training data, for a root that contains none, as when an archive was unpacked."""
    if _recognized(settings, "train"):
        return None
    _, folders, _ = next(os.walk(root), ("", [], []))
    names = sorted(name for name in folders if not name.startswith("."))[:_FOLDERS]
    below = (settings.model_copy(update={"root": root / name}) for name in names)
    return next((each.root for each in below if _recognized(each, "train")), None)


def existing_splits(settings: DataSettings) -> list[Split]:
    """Return the splits that a data set has. Raises ``DataError`` when it has none."""
    settings = _downloaded(settings)
    found: list[Split] = []
    for split in SPLITS:
        if split == "val" and settings.val_fraction:
            found.append(split)
        elif split == "val" and settings.val == "none":
            continue
        elif settings.files_of(split)[0] is not None or _recognized(settings, split):
            found.append(split)
    if not found:
        choose_layout(settings, "train")  # raises the sentence that says what was looked for
    return found


# --- from what the files list to annotations ---


def annotations_from(listing: Listing, settings: DataSettings, on_header: OnDone | None = None) -> Annotations:
    """Compare a listing with the headers of its images, count what is wrong with its boxes, and return the annotations."""
    absurd = np.flatnonzero(~(np.abs(listing.boxes) < LARGEST).all(axis=1))
    if len(absurd):
        raise DataError(f"{listing.source}: box {listing.annotation(int(absurd[0]))} lies beyond any image; correct it")
    headers = read_headers(listing.folder, listing.file_names, on_header)
    listing, headers = _of_right_size(*_readable(listing, headers, settings), settings)
    boxes, sizes = _in_upright_frame(listing, headers, settings)
    _count_problems(listing, boxes, sizes)
    return Annotations.of(
        source=listing.source,
        folder=listing.folder,
        categories=listing.categories,
        image_ids=listing.image_ids,
        file_names=listing.file_names,
        sizes=sizes,
        owners=listing.owners,
        boxes=boxes,
        labels=listing.labels,
        areas=listing.areas,
        crowd=listing.crowd,
        problems=listing.problems.found(),
    )


def _readable(listing: Listing, headers: Headers, settings: DataSettings) -> tuple[Listing, Headers]:
    """Leave out images that can't be read, if the settings say so, or raise ``DataError`` for them."""
    if not headers.unreadable:
        return listing, headers
    first = next(iter(headers.unreadable.values()))
    if settings.on_error != "skip":
        raise DataError(
            f"{len(headers.unreadable)} of {len(listing.file_names)} images of {listing.source} can't be used: {first}; "
            f"replace or remove the files, or leave them out with data.on_error=skip"
        )
    listing.problems.add_images("unreadable", list(headers.unreadable.values()))
    left_out = np.array([i in headers.unreadable for i in range(len(listing.file_names))])
    if left_out.all():
        raise DataError(f"no image of {listing.source} can be used: {first}; replace the files")
    return listing.without_images(left_out), headers.without(left_out)


def _of_right_size(listing: Listing, headers: Headers, settings: DataSettings) -> tuple[Listing, Headers]:
    """Leave out images of another size than the annotations say, if the settings say so, or raise ``DataError`` for them.

    When all images are of another size, or all of these would fit with another ``data.exif``, ``DataError`` is raised anyway.
    """
    raw = settings.exif == "raw"
    expected = headers.sizes if raw else headers.upright
    wrong = (listing.sizes > 0).all(1) & (listing.sizes != expected).any(1)
    if not wrong.any():
        return listing, headers
    other = headers.upright if raw else headers.sizes
    explained = bool((listing.sizes[wrong] == other[wrong]).all())
    indices: list[int] = np.flatnonzero(wrong).tolist()
    if explained or settings.on_error != "skip" or wrong.all():
        if explained:
            remedy = (
                "set data.exif=upright" if raw else "set data.exif=raw, because the boxes refer to the stored pixels"
            )
        else:
            remedy = "correct the annotations or the images"
            remedy += "" if wrong.all() else ", or leave these out with data.on_error=skip"
        raise DataError(
            f"{listing.source}: {len(indices)} of {len(listing.file_names)} images have another size than the annotations "
            f"say, so their boxes would be misplaced: {_sizes(listing, headers, indices[0])}; {remedy}"
        )
    listing.problems.add_images("wrong_size", [_sizes(listing, headers, index) for index in indices])
    return listing.without_images(wrong), headers.without(wrong)


def _sizes(listing: Listing, headers: Headers, index: int) -> str:
    """Return the part of a sentence that tells the size of an image, and what the annotations say."""

    def shown(size: np.ndarray) -> str:
        return f"{size[1]} x {size[0]}"

    what = f"is {shown(headers.sizes[index])}"
    if headers.orientations[index] != 1:
        what += f" as stored and {shown(headers.upright[index])} after its EXIF rotation"
    return f"{listing.folder / listing.file_names[index]} {what}, but the annotations say {shown(listing.sizes[index])}"


def _in_upright_frame(listing: Listing, headers: Headers, settings: DataSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes in pixels of the upright images, float64 ``[objects, 4]``, and the sizes of these images."""
    raw = settings.exif == "raw"
    if listing.fractions:
        expected = headers.sizes if raw else headers.upright
        scale = expected[listing.owners][:, [1, 0, 1, 0]]
        boxes = np.round(listing.boxes * scale, _DECIMALS)
    else:
        boxes = listing.boxes
    known = (listing.sizes > 0).all(1)
    turned = headers.orientations != 1
    if turned.any():
        example = listing.file_names[int(np.flatnonzero(turned)[0])]
        asymmetric = np.isin(headers.orientations, QUARTER_TURNS) & (headers.sizes[:, 0] != headers.sizes[:, 1])
        if raw:
            kind = "turned_raw"
        elif settings.exif == "upright" or (asymmetric & known).any():
            kind = "turned"
        else:
            kind = "maybe_turned"
        listing.problems.add(kind, example, int(turned.sum()))
    if raw:
        boxes = turned_boxes(boxes, headers.sizes[listing.owners], headers.orientations[listing.owners])
    return boxes, headers.upright


def turned_boxes(boxes: np.ndarray, sizes: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Turn boxes with their images, from the stored pixels to the upright image.

    boxes: float64 ``[objects, 4]``, x, y, width, height. sizes: (height, width) as stored, of the image of each object.
    orientations: EXIF orientation of the image of each object.
    """
    height, width = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    x, y, w, h = boxes.T
    right, below = width - x - w, height - y - h  # distances to the other borders
    forms = {
        1: (x, y, w, h),
        2: (right, y, w, h),
        3: (right, below, w, h),
        4: (x, below, w, h),
        5: (y, x, h, w),
        6: (below, x, h, w),
        7: (below, right, h, w),
        8: (y, right, h, w),
    }
    turned = np.array(boxes, dtype=np.float64)
    for orientation, form in forms.items():
        rows = orientations == orientation
        turned[rows] = np.stack(form, axis=1)[rows]
    return turned


def _count_problems(listing: Listing, boxes: np.ndarray, sizes: np.ndarray) -> None:
    """Count what is wrong with boxes, and crowds. boxes: x, y, width, height in pixels of images of these sizes."""
    problems = listing.problems

    def count(kind: str, rows: np.ndarray) -> None:
        if rows.any():
            problems.add(kind, listing.annotation(int(np.flatnonzero(rows)[0])), int(rows.sum()))

    crowd = listing.crowd
    crowds = int(crowd.sum())
    if not problems.has("difficult"):  # these are the crowds of Pascal VOC, and counted already
        count("many_crowds" if crowds > MANY_CROWDS * len(crowd) else "crowd", crowd)
    if not len(boxes):
        return
    x, y, w, h = boxes.T
    height, width = sizes[listing.owners].T
    positive = (w > 0) & (h > 0)
    count("without_area", ~positive & ~crowd)
    outside = positive & ~crowd & ((x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0))
    beyond = positive & ~crowd & ~outside & ((x < -1) | (y < -1) | (x + w > width + 1) | (y + h > height + 1))
    as_corners = (w > x) & (h > y) & (w <= width + 1) & (h <= height + 1)
    misplaced = outside | beyond
    if misplaced.sum() > MANY_BEYOND * len(boxes) and as_corners[positive].all():
        count("corners", misplaced)
    else:
        count("outside", outside)
        count("beyond", beyond)
    tiny = positive & (w <= 1) & (h <= 1) & (x <= 1) & (y <= 1)
    count("tiny", tiny if tiny.sum() * 2 > positive.sum() else np.zeros_like(tiny))
    rows = np.column_stack([listing.owners, listing.labels, boxes])
    order = np.lexsort(rows.T[::-1])
    repeated = np.zeros(len(boxes), dtype=bool)
    repeated[order[1:]] = np.equal(rows[order[1:]], rows[order[:-1]]).all(axis=1)
    count("repeated_box", repeated)
