"""Find and read COCO annotation files in the common folder layouts, including Roboflow's COCO export."""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.layouts import Split
from conditional_detr.errors import DataError
from conditional_detr.files import read_json
from conditional_detr.record import Categories

LOOKED_FOR = "annotations/instances_SPLIT2017.json, annotations/instances_SPLIT.json, SPLIT/_annotations.coco.json"
_IDS = range(-(2**63), 2**63)


def recognize(root: Path, split: Split) -> bool:
    return _annotation_file(root, split) is not None


def read(settings: DataSettings, split: Split) -> Annotations:
    file, folders = find_split(settings, split)
    return read_coco(file, folders, f"data.{split}_images")


def _split_names(split: Split) -> list[str]:
    return ["train"] if split == "train" else ["val", "valid"]


def _annotation_file(root: Path, split: Split) -> Path | None:
    names = _split_names(split)
    candidates = [
        *(root / "annotations" / f"instances_{name}{year}.json" for name in names for year in ("2017", "")),
        *(root / name / "_annotations.coco.json" for name in names),
    ]
    return next((file for file in candidates if file.is_file()), None)


def find_split(settings: DataSettings, split: Split) -> tuple[Path, tuple[Path, ...]]:
    """Return the annotation file of a split, and the folders that may contain its images."""
    images = settings.train_images if split == "train" else settings.val_images
    annotations = settings.train_annotations if split == "train" else settings.val_annotations
    root = settings.root
    if annotations is None:
        assert root is not None
        annotations = _annotation_file(root, split)
        assert annotations is not None  # ``recognize`` found it
    if images is not None:
        return annotations, (images,)
    if annotations.name == "_annotations.coco.json" or root is None:
        return annotations, (annotations.parent,)
    named = [
        root / parent / f"{name}{year}"
        for name in _split_names(split)
        for year in ("2017", "")
        for parent in ("", "images")
    ]
    return annotations, (*named, root / "images", root, annotations.parent)


def read_coco(file: Path, folders: Sequence[Path], setting: str = "the image folder") -> Annotations:
    """Read an annotation file whose images are in one of ``folders``.

    setting: name of the setting for the image folder, for messages. Raises ``DataError`` naming file and entry for unreadable
    JSON, missing keys, unknown ids, boxes that are not finite, and missing image files.
    """
    content = _read_lists(file)
    categories = _categories(content["categories"], file)
    images = content["images"]
    if not images:
        raise DataError(f"{file} lists no images; give an annotation file with at least one")
    try:
        image_ids = np.array([image["id"] for image in images], dtype=np.int64)
        sizes = np.array([[image["height"], image["width"]] for image in images], dtype=np.int32)
        file_names = [str(image["file_name"]) for image in images]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: every image needs id, file_name, width and height ({error!r})") from error
    position = {int(image_id): i for i, image_id in enumerate(image_ids)}
    if len(position) != len(images):
        raise DataError(f"{file}: image ids repeat; give every image its own id")
    return Annotations.of(
        source=file,
        folder=_image_folder(file, folders, file_names, setting),
        categories=categories,
        image_ids=image_ids,
        file_names=file_names,
        sizes=sizes,
        **_objects(content["annotations"], position, categories, file),
    )


def _read_lists(file: Path) -> dict[str, Any]:
    content = read_json(file, DataError, "check the path, or export the annotations again")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{file} is not a COCO annotation file: it has no list {key!r}")
    return content


def _categories(records: list[dict[str, Any]], file: Path) -> Categories:
    try:
        if not all(isinstance(record["id"], int) and record["id"] in _IDS for record in records):
            raise ValueError("an id is not a whole number of 64 bits")
        pairs = sorted((record["id"], str(record["name"])) for record in records)
        categories = Categories(tuple(id_ for id_, _ in pairs), tuple(name for _, name in pairs))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: every category needs a name and its own id ({error})") from error
    if not pairs:
        raise DataError(f"{file} lists no categories; add at least one")
    return categories


def _objects(
    annotations: list[Any], position: dict[int, int], categories: Categories, file: Path
) -> dict[str, np.ndarray]:
    """Read owners, boxes, labels, areas and crowd flags in the form that ``Annotations.of`` takes."""
    index_of = {id_: i for i, id_ in enumerate(categories.ids)}
    owners, labels, boxes, areas, crowd = array("q"), array("q"), array("d"), array("d"), array("b")
    for record in annotations:
        if not isinstance(record, dict):
            raise DataError(f"{file}: an annotation is {record!r} instead of a JSON object; export the file again")
        for key in ("image_id", "category_id", "bbox"):
            if key not in record:
                raise DataError(f"{_name(file, record)} has no {key!r}; export the file again")
        for key, known in (("image_id", position), ("category_id", index_of)):
            if not isinstance(record[key], int) or record[key] not in known:
                raise DataError(f"{_name(file, record)} has {key} {record[key]!r}, which the file does not list")
        box: Any = record["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
            raise DataError(f"{_name(file, record)} has bbox {box!r}; it needs four numbers: x, y, width, height")
        area: Any = record.get("area")
        owners.append(position[record["image_id"]])
        labels.append(index_of[record["category_id"]])
        try:
            boxes.extend(box)
            areas.append(area if isinstance(area, (int, float)) else 0)
        except OverflowError as error:
            raise DataError(f"{_name(file, record)} has a number that is too large; correct it") from error
        crowd.append(bool(record.get("iscrowd")))
    return {
        "owners": np.array(owners, dtype=np.int64),
        "boxes": np.array(boxes, dtype=np.float64).reshape(-1, 4),
        "labels": np.array(labels, dtype=np.int64),
        "areas": np.array(areas, dtype=np.float64),
        "crowd": np.array(crowd, dtype=bool),
    }


def _name(file: Path, record: dict[str, Any]) -> str:
    return f"{file}: annotation {record.get('id', '(without id)')}"


def _image_folder(file: Path, folders: Sequence[Path], names: list[str], setting: str) -> Path:
    folder = next((folder for folder in folders if (folder / names[0]).is_file()), None)
    if folder is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{names[0]}, the first image in {file}, is not in {looked}; set {setting}")
    present: dict[str, set[str]] = {}
    missing: list[str] = []
    for name in names:
        parent, base = os.path.split(name)
        if parent not in present:
            present[parent] = set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        if base not in present[parent]:
            missing.append(name)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images in {file} are not in {folder}, the first is {missing[0]}; "
            f"add the files or remove their entries"
        )
    return folder
