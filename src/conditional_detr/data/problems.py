"""Faults and peculiarities of a data set that do not stop training. Each kind is told once, with its count and an example."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["note", "warning"]

# Kind -> level, what was found and the remedy. A note describes what is usual or was set right without loss. A warning
# describes what will probably train or evaluate badly; ``data.strict`` turns it into a refusal.
KINDS: dict[str, tuple[Level, str, str]] = {
    # annotations
    "orphan": (
        "warning",
        "annotations belong to no listed image and are left out",
        "list their images, or remove the annotations",
    ),
    "repeated_id": ("warning", "annotation ids repeat", "give every annotation its own id"),
    "repeated_box": ("warning", "objects are annotated twice, with the same box and category", "remove one of the two"),
    "id_as_text": (
        "note",
        "ids or coordinates are written as text or decimals, and are read as numbers",
        "write numbers",
    ),
    "same_category": ("warning", "categories have the same name as another", "give every category its own name"),
    "crowd": (
        "note",
        "crowds (iscrowd) are left out of training and ignored in AP",
        "set iscrowd to 0 where a box is around one object",
    ),
    "many_crowds": (
        "warning",
        "a large part of the annotations are crowds (iscrowd), which are left out of training and ignored in AP",
        "set iscrowd to 0 where a box is around one object",
    ),
    "area": (
        "note",
        "areas are missing, not above 0, larger than the box or not numbers, and the area of the box is used",
        "write areas in square pixels for exact AP by size",
    ),
    "difficult": (
        "note",
        "objects are marked as difficult and are treated as crowds",
        "set data.voc_difficult=keep to train with them",
    ),
    # Pascal VOC, YOLO and Hugging Face
    "similar_category": (
        "warning",
        "categories differ from another only in case or spaces",
        "give both one name if they mean the same",
    ),
    "outline": (
        "note",
        "objects are polygons or rotated boxes, and the upright box around each is used",
        "write boxes if these are not right",
    ),
    "without_file": (
        "note",
        "images have no label file and are taken as images without objects",
        "write an empty file where that is right, and add the missing ones",
    ),
    "unannotated": (
        "warning",
        "images are not annotated and are left out",
        "annotate them; an image without objects needs an annotation file, or a row, too",
    ),
    "unsupported": (
        "warning",
        "images are in a format that is not read, and are left out",
        "convert them to JPEG or PNG",
    ),
    "other_name": (
        "warning",
        "annotation files name another existing image than the one they are called after, which is used",
        "correct the name inside, or rename the files",
    ),
    "one_based": (
        "note",
        "corners are at 1 and none is at 0, as if pixels were counted from 1",
        "set data.voc_one_based=true for data of the original Pascal VOC; leave it for labelImg, which writes 1 in place of 0",
    ),
    "test_split": (
        "note",
        "test split is used for validation, because there is no other",
        "set data.val_fraction to hold out training images instead",
    ),
    "unnamed": (
        "note",
        "categories have no names and are called by their numbers",
        "set data.categories, or name them in the files",
    ),
    # boxes
    "without_area": ("warning", "boxes have no area and are left out of training", "correct or remove them"),
    "outside": ("warning", "boxes lie outside their image and are left out of training", "correct or remove them"),
    "beyond": (
        "warning",
        "boxes reach more than a pixel beyond their image and are clipped in training",
        "correct them if they are misplaced",
    ),
    "tiny": (
        "warning",
        "boxes are smaller than a pixel, as if they were fractions of the image",
        "write boxes in pixels: x, y, width, height",
    ),
    "corners": (
        "warning",
        "boxes reach beyond their image, but would fit as corners x0, y0, x1, y1",
        "write boxes as x, y, width, height",
    ),
    # images
    "without_size": ("note", "images have no valid width and height, which are read from the files", "add the sizes"),
    "file_name": (
        "warning",
        "file names differ from those of the files in case, folder, suffix, separator or form of Unicode",
        "correct the names",
    ),
    "same_file": ("warning", "images are listed twice", "list every image once, with all of its annotations"),
    "turned": (
        "note",
        "images have an EXIF orientation, and their boxes are read in the upright frame, as viewers show it",
        "set data.exif=raw if the boxes refer to the stored pixels",
    ),
    "turned_raw": (
        "note",
        "images have an EXIF orientation, and their boxes are read in the frame of the stored pixels (data.exif=raw)",
        "leave data.exif out if the boxes refer to the upright image",
    ),
    "maybe_turned": (
        "warning",
        "images have an EXIF orientation, and sizes do not tell the frame of their boxes, which are read in the upright frame, as viewers show it",
        "set data.exif=upright if that is right, data.exif=raw if boxes refer to the stored pixels",
    ),
    "unreadable": ("warning", "images can't be read and are left out", "replace or remove the files"),
    "missing": ("warning", "images do not exist and are left out", "add the files or remove their entries"),
    "wrong_size": (
        "warning",
        "images have another size than the annotations say and are left out",
        "correct the annotations or the images",
    ),
    # splits
    "other_ids": (
        "note",
        "categories have another id or case than in training and are matched by name",
        "give both the same",
    ),
    "unlisted": ("note", "categories without boxes are not listed for training and are left out", "list them in both"),
    "fewer": ("note", "categories of the training data are not listed here and have no AP", "list them in both"),
    "copy": (
        "warning",
        "validation images are also training images, so AP is too high",
        "remove them from one of the splits",
    ),
    "other_split": (
        "warning",
        "images come from the folder of another split",
        "set data.train_images or data.val_images to the right folder",
    ),
}


@dataclass(frozen=True)
class Problem:
    """One kind of fault in a data set.

    kind: a key of ``KINDS``. count: how often it occurs. source: file or folder of the annotations. example: the first one.
    images: what is wrong with each image, for kinds of images that are left out.
    """

    kind: str
    count: int
    source: str
    example: str
    images: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        return KINDS[self.kind][0]

    def __str__(self) -> str:
        _, found, remedy = KINDS[self.kind]
        example = self.example if self.count == 1 else f"such as {self.example}"
        return f"{self.source}: {found} ({self.count}, {example}); {remedy}"


class Problems:
    """Collector of the faults of a data set, which counts every kind and keeps its first example."""

    def __init__(self, source: object) -> None:
        self.source = str(source)
        self._found: dict[str, Problem] = {}

    def add(self, kind: str, example: object, count: int = 1) -> None:
        """Count a fault. count: number of faults of this kind that the example stands for; 0 for none."""
        if count > 0:
            assert kind in KINDS
            first = self._found.get(kind) or Problem(kind, 0, self.source, str(example))
            self._found[kind] = replace(first, count=first.count + count)

    def has(self, kind: str) -> bool:
        """Tell whether a fault of this kind was counted."""
        return kind in self._found

    def add_images(self, kind: str, images: Sequence[str]) -> None:
        """Count images that are left out. images: what is wrong with each."""
        if images:
            self.add(kind, images[0], len(images))
            self._found[kind] = replace(self._found[kind], images=(*self._found[kind].images, *images))

    def found(self) -> tuple[Problem, ...]:
        """Return the problems, warnings first."""
        return in_order(self._found.values())


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return problems with the warnings first."""
    return tuple(sorted(problems, key=lambda problem: problem.level != "warning"))
