"""COCO annotation files, and where they lie in the usual folder layouts."""

import json
import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.errors import InputError
from conditional_detr.structures import Categories

Split = Literal["train", "val"]


class Names(Sequence[str]):
    """Strings in two arrays. Reading a list of Python's would write to it (reference counts), and so copy it in every process."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        part = self._bytes[self._ends[position] : self._ends[position + 1]]
        return part.tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class CocoAnnotations:
    """An annotation file in flat arrays, so that loading processes share its memory.

    Of image ``i``: ``image_ids`` int64 ``[images]``, ``sizes`` int32 ``[images, 2]`` (height, width), ``file_names``
    below ``folder``. Objects of image ``i`` are rows ``offsets[i]:offsets[i + 1]`` of ``boxes`` (float32, x0, y0, x1, y1 in
    pixels, clipped to the image) and ``labels`` (int64 logit indices). Crowds and boxes without area are not among them; ``dropped`` counts the latter.
    """

    file: Path
    folder: Path
    categories: Categories
    image_ids: np.ndarray
    file_names: Names
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    dropped: int

    def __len__(self) -> int:
        return len(self.file_names)

    def path(self, index: int) -> Path:
        return self.folder / self.file_names[index]

    def objects(self, index: int) -> slice:
        """Rows of image ``index``."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))


def find_split(settings: DataSettings, split: Split) -> tuple[Path, tuple[Path, ...]]:
    """Annotation file of a split, and the folders its images may be in. Raises ``InputError`` when nothing is found."""
    annotations = settings.train_annotations if split == "train" else settings.val_annotations
    images = settings.train_images if split == "train" else settings.val_images
    root = settings.root
    names = ["train"] if split == "train" else ["val", "valid"]
    if annotations is None:
        if root is None:
            raise InputError(
                f"no data: set data.root to a COCO folder, or data.{split}_annotations and data.{split}_images"
            )
        if not root.is_dir():
            raise InputError(f"data.root {root} is not a folder; give the folder that holds annotations/ or train/")
        candidates = [
            *(root / "annotations" / f"instances_{name}{year}.json" for name in names for year in ("2017", "")),
            *(root / name / "_annotations.coco.json" for name in names),
        ]
        annotations = next((file for file in candidates if file.is_file()), None)
        if annotations is None:
            raise InputError(
                f"{root} holds no {split} annotations (looked for "
                f"{', '.join(str(file.relative_to(root)) for file in candidates)}); set data.{split}_annotations"
            )
    if images is not None:
        return annotations, (images,)
    if annotations.name == "_annotations.coco.json" or root is None:
        return annotations, (annotations.parent,)
    named = [root / parent / f"{name}{year}" for name in names for year in ("2017", "") for parent in ("", "images")]
    return annotations, (*named, root / "images", root, annotations.parent)


def read_split(settings: DataSettings, split: Split) -> CocoAnnotations:
    """Annotations of a split, its image files checked to exist. Raises ``InputError``."""
    file, folders = find_split(settings, split)
    return read_annotations(file, folders, f"data.{split}_images")


def read_annotations(file: Path, folders: Sequence[Path], setting: str = "the image folder") -> CocoAnnotations:
    """Read an annotation file whose images lie in one of ``folders``.

    Raises ``InputError`` naming file and entry: for unreadable JSON, missing keys, unknown ids, boxes that are not
    finite, and images that are not there (``setting`` is what the message tells to set).
    """
    content = _read_json(file)
    categories = _categories(content["categories"], file)
    images = content["images"]
    if not images:
        raise InputError(f"{file} lists no images; give an annotation file with at least one")
    try:
        image_ids = np.array([image["id"] for image in images], dtype=np.int64)
        sizes = np.array([[image["height"], image["width"]] for image in images], dtype=np.int32)
        file_names = [str(image["file_name"]) for image in images]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{file}: every image needs id, file_name, width and height ({error!r})") from error
    position = {int(image_id): i for i, image_id in enumerate(image_ids)}
    if len(position) != len(images):
        raise InputError(f"{file}: image ids repeat; give every image an id of its own")

    owners, corners, labels, dropped = _objects(content["annotations"], position, categories, sizes, file)
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=len(images))
    return CocoAnnotations(
        file=file,
        folder=_image_folder(file, folders, file_names, setting),
        categories=categories,
        image_ids=image_ids,
        file_names=Names(file_names),
        sizes=sizes,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=corners[order],
        labels=labels[order],
        dropped=dropped,
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"annotation file {file} can't be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"annotation file {file} is not valid JSON ({error}); export it again") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(cast(dict[str, Any], content).get(key), list):
            raise InputError(f"{file} is not a COCO annotation file: it has no list {key!r}")
    return cast(dict[str, Any], content)


def _categories(records: list[dict[str, Any]], file: Path) -> Categories:
    try:
        if not all(isinstance(record["id"], int) for record in records):
            raise ValueError("an id is not a whole number")
        pairs = sorted((record["id"], str(record["name"])) for record in records)
        categories = Categories(tuple(id_ for id_, _ in pairs), tuple(name for _, name in pairs))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: every category needs a name and an id of its own ({error})") from error
    if not pairs:
        raise InputError(f"{file} lists no categories; a detector needs at least one")
    return categories


def _objects(
    annotations: list[Any],
    position: dict[int, int],
    categories: Categories,
    sizes: np.ndarray,
    file: Path,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Image positions, corners and labels of the boxes that training uses, and how many had no area."""
    index_of = {id_: i for i, id_ in enumerate(categories.ids)}
    owners, labels, boxes = array("q"), array("q"), array("d")
    for record in annotations:
        if not isinstance(record, dict):
            raise InputError(f"{file}: an annotation is {record!r} instead of a JSON object; export it again")
        for key in ("image_id", "category_id", "bbox"):
            if key not in record:
                raise InputError(f"{_name(file, record)} has no {key!r}; export it again")
        for key, known in (("image_id", position), ("category_id", index_of)):
            if not isinstance(record[key], int) or record[key] not in known:
                raise InputError(f"{_name(file, record)} has {key} {record[key]!r}, which the file does not list")
        box: Any = record["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
            raise InputError(f"{_name(file, record)} has bbox {box!r}; four numbers x, y, width, height are needed")
        if not record.get("iscrowd"):
            x, y, width, height = box
            owners.append(position[record["image_id"]])
            labels.append(index_of[record["category_id"]])
            boxes.extend((x, y, x + width, y + height))
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    where = np.array(owners, dtype=np.int64)
    if not np.isfinite(corners).all():
        image = int(where[~np.isfinite(corners).all(1)][0])
        raise InputError(f"{file}: a bbox of image {list(position)[image]} is NaN or infinite; correct it")
    limits = sizes[where][:, [1, 0, 1, 0]].astype(np.float32)
    corners = np.minimum(np.maximum(corners, 0), limits)
    keep = (corners[:, 2:] > corners[:, :2]).all(1)
    return where[keep], corners[keep], np.array(labels, dtype=np.int64)[keep], int((~keep).sum())


def _name(file: Path, record: dict[str, Any]) -> str:
    return f"{file}: annotation {record.get('id', '(without id)')}"


def _image_folder(file: Path, folders: Sequence[Path], names: list[str], setting: str) -> Path:
    folder = next((folder for folder in folders if (folder / names[0]).is_file()), None)
    if folder is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise InputError(f"{names[0]}, the first image of {file}, is not in {looked}; set {setting}")
    present: dict[str, set[str]] = {}
    missing: list[str] = []
    for name in names:
        parent, base = os.path.split(name)
        if parent not in present:
            present[parent] = set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        if base not in present[parent]:
            missing.append(name)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} images of {file} are not in {folder}, the first is {missing[0]}; "
            f"add the files or remove their entries"
        )
    return folder
