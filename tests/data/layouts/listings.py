"""Write small data sets, and compare what is read from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conditional_detr.config import DataSettings
from conditional_detr.data.layouts import Layout
from conditional_detr.data.listing import Listing
from conditional_detr.errors import DataError


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def image(path: Path, size=(40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def read(layout: Layout, root: Path, split="train", **settings) -> Listing:
    assert layout.recognize(root, split)
    listing = layout.read(DataSettings(root=root, **settings), split)
    for name in listing.file_names:
        assert (listing.folder / name).is_file()
    return listing


def refused(layout: Layout, root: Path, split="train", **settings) -> str:
    """Return the sentence that a data set is refused with."""
    with pytest.raises(DataError) as caught:
        layout.read(DataSettings(root=root, **settings), split)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def problems(listing: Listing) -> dict[str, int]:
    return {problem.kind: problem.count for problem in listing.problems.found()}


def rows(listing: Listing) -> list[tuple]:
    """Return (file, category, x, y, width, height) of all objects."""
    return [
        (listing.file_names[owner], listing.categories.names[label], *box)
        for owner, label, box in zip(listing.owners, listing.labels, listing.boxes.tolist(), strict=True)
    ]


def boxes_in_pixels(listing: Listing) -> np.ndarray:
    """Return boxes in pixels. A listing of fractions needs the sizes of its images, which their headers give."""
    if not listing.fractions:
        return listing.boxes
    sizes: list[tuple[int, ...]] = []
    for name in listing.file_names:
        with Image.open(listing.folder / name) as opened:
            sizes.append(opened.size * 2)
    return np.round(listing.boxes * np.array(sizes)[listing.owners], 6)


def rows_of_coco(file: Path) -> tuple[list[str], list[tuple]]:
    """Return the file names in order, and (file, category, x, y, width, height) of all objects."""
    content = json.loads(file.read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    files = {each["id"]: each["file_name"] for each in content["images"]}
    return list(files.values()), [
        (files[each["image_id"]], names[each["category_id"]], *each["bbox"]) for each in content["annotations"]
    ]


def linked(source: Path, target: Path, names: list[str]) -> None:
    """Link files of a folder, to have a small part of it."""
    target.mkdir(parents=True)
    for name in names:
        (target / name).symlink_to(source / name)
