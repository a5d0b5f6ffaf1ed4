"""COCO annotation files in the common folder layouts, including Roboflow's COCO export."""

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from reprlib import repr as shown  # short, and of any depth
from typing import Any, cast

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.data.layouts import Split
from conditional_detr.data.layouts.locating import locate_images
from conditional_detr.data.layouts.numbers import number, whole_number
from conditional_detr.data.listing import Listing
from conditional_detr.data.problems import Problems
from conditional_detr.errors import DataError
from conditional_detr.files import read_json
from conditional_detr.record import Categories

LOOKED_FOR = "annotations/instances_SPLIT2017.json, annotations/instances_SPLIT.json, SPLIT/_annotations.coco.json"

Record = dict[str, Any]
_SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
# Files of a split, and files that hold a whole data set, which is taken for training.
_FILES = (
    "annotations/instances_{}2017.json",
    "annotations/instances_{}.json",
    "annotations/{}2017.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",
    "{}/annotations.json",
    "{}.json",
)
_UNSPLIT = (
    "annotations/instances_default.json",
    "annotations/annotations.json",
    "_annotations.coco.json",
    "annotations.json",
    "result.json",
    "labels.json",
)
_FALSE = frozenset({"", "0", "0.0", "false", "f", "no", "n", "none", "null"})
_TRUE = frozenset({"1", "1.0", "true", "t", "yes", "y"})
_LARGEST_SIDE = 2**31 - 1
_LARGEST = 1e300
_NUMBERS = frozenset({int, float})


def recognize(root: Path, split: Split) -> bool:
    return root.is_dir() and bool(_annotation_files(root, split))


def read(settings: DataSettings, split: Split) -> Listing:
    file, images = settings.files_of(split)
    if file is None:
        assert settings.root is not None
        files = _annotation_files(settings.root, split)
        if len(files) > 1:
            raise DataError(f"{files[0]} and {files[1]} are both there; set data.{split}_annotations to one of them")
        file = files[0]  # ``recognize`` found it
    named_as: Split = "test" if split == "val" and settings.root and file in _files(settings.root, "test") else split
    tiers = [[images]] if images is not None else _image_folders(settings.root, file, named_as)
    listing = read_file(file, tiers, f"data.{split}_images", skip=settings.on_error == "skip")
    if named_as != split:
        listing.problems.add("test_split", file.name)
    folder, named = _split_of(listing.folder.name), {_split_of(word) for word in _words(file.stem)} - {""}
    if images is None and folder and named and folder not in named:
        listing.problems.add("other_split", f"{listing.folder} for {file.name}", len(listing.file_names))
    return listing


def _split_of(name: str) -> str:
    """Return the split that the name of a folder or a file's part means, or an empty text."""
    matched = re.match(r"train|val|test", name.lower())
    return matched[0] if matched else ""


def _annotation_files(root: Path, split: Split) -> list[Path]:
    """Return the annotation files of a split, each once: two names on a disk without case, or a link, are one file."""
    found = _files(root, split)
    if not found and split == "train":
        found = [root / name for name in _UNSPLIT if (root / name).is_file()]
    if not found and split == "val":
        found = _files(root, "test")
    return list({file.resolve(): file for file in reversed(found)}.values())[::-1]


def _files(root: Path, split: Split) -> list[Path]:
    """Return the annotation files that are named as a split."""
    candidates = (root / pattern.format(name) for pattern in _FILES for name in _SPLITS[split])
    return [file for file in candidates if file.is_file()]


def _image_folders(root: Path | None, file: Path, split: Split) -> list[list[Path]]:
    """Return the folders that may hold the images, best first: those named as the file, those of the split, any other.

    The name of the file comes first, because images of different splits can have the same names.
    """
    beside = file.name == "_annotations.coco.json"
    places = [file.parent, file.parent.parent] if root is None or beside else [root]
    places = list(dict.fromkeys([*places, *(place / "images" for place in places)]))

    def folders(names: Iterable[str]) -> list[Path]:
        return [place / name for name in dict.fromkeys(names) for place in places]

    own = [file.parent] if file.stem in ("_annotations.coco", "annotations") else []
    of_split = [f"{name}{year}" for name in _SPLITS[split] for year in ("2017", "")]
    return [
        own,
        folders(_words(file.stem)),
        folders(of_split),
        *([place] for place in (file.parent / "images", file.parent / "data", *reversed(places), file.parent)),
    ]


def _words(stem: str) -> list[str]:
    """Return the names of image folders that the name of an annotation file suggests: instances_val2017 -> val2017, val."""
    words = [word for word in re.split(r"[_.\-\s]+", stem) if word]
    named = [word for word in words if re.match(r"train|val|test|dev|mini", word.lower())] or words
    return [
        form
        for word in named
        for form in (word, re.sub(r"\d+$", "", word), f"{re.sub(r'2017$', '', word)}2017")
        if form
    ]


# --- one file ---


def read_file(
    file: Path, tiers: Sequence[Sequence[Path]], setting: str = "the image folder", skip: bool = False
) -> Listing:
    """List the images and objects of an annotation file. tiers, setting, skip: as in ``locate_images``.

    Raises ``DataError`` naming file and entry for unreadable JSON, missing keys, unknown categories, boxes and ids that are not
    numbers, repeated ids, and missing image files.
    """
    content = read_json(file, DataError, "check the path, or export the annotations again")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{file} is not a COCO annotation file: it has no list {key!r}")
        for i, record in enumerate(cast("list[object]", content[key])):
            if not isinstance(record, dict):
                raise DataError(
                    f"{file}: entry {i} of {key} is {shown(record)} instead of a JSON object; export it again"
                )
    problems = Problems(file)
    categories = _categories(content["categories"], file, problems)
    image_ids, names, sizes = _images(content["images"], file, problems)
    objects = _objects(content["annotations"], image_ids, names, categories, file, problems)
    folder, found = locate_images(names, tiers, source=file, setting=setting, problems=problems, skip=skip)
    listing = Listing(
        source=file,
        folder=folder,
        categories=categories,
        image_ids=image_ids,
        file_names=[name or "" for name in found],
        sizes=sizes,
        problems=problems,
        fractions=False,
        **objects,
    )
    missing = np.array([name is None for name in found])
    return listing.without_images(missing) if missing.any() else listing


def _id(record: Record, key: str, name: str, problems: Problems) -> int:
    """Return an id as a whole number. name: name of the record in messages."""
    if key not in record:
        raise DataError(f"{name} has no {key!r}; export the file again")
    value: Any = record[key]
    found = whole_number(value)
    if found is None:
        raise DataError(f"{name} has {key} {shown(value)}; ids must be whole numbers of 64 bits, so number them")
    if not isinstance(value, int):
        problems.add("id_as_text", f"{key} {shown(value)}")
    return found


def _categories(records: list[Record], file: Path, problems: Problems) -> Categories:
    names: dict[int, str] = {}
    for i, record in enumerate(records):
        id_ = _id(record, "id", f"{file}: entry {i} of categories", problems)
        name: Any = record.get("name")
        if not isinstance(name, (str, int)) or not str(name).strip():
            raise DataError(f"{file}: category {id_} has name {shown(name)}; give every category a name")
        if id_ in names:
            raise DataError(f"{file}: category id {id_} is given to {names[id_]!r} and {name!r}; give each its own id")
        if str(name) in names.values():
            problems.add("same_category", repr(name))
        names[id_] = str(name)
    if not names:
        raise DataError(f"{file} lists no categories; add at least one")
    return Categories(tuple(sorted(names)), tuple(names[id_] for id_ in sorted(names)))


def _images(records: list[Record], file: Path, problems: Problems) -> tuple[list[int], list[str], np.ndarray]:
    """Return ids, file names and sizes, int32 ``[images, 2]``, which are 0 where the file gives no valid size."""
    if not records:
        raise DataError(f"{file} lists no images; give an annotation file with at least one")
    names: dict[int, str] = {}
    sizes = np.zeros((len(records), 2), dtype=np.int32)
    for i, record in enumerate(records):
        name: Any = record.get("file_name")
        id_ = _id(
            record,
            "id",
            f"{file}: image {name!r:.100}" if isinstance(name, str) else f"{file}: entry {i} of images",
            problems,
        )
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise DataError(f"{file}: image {id_} has file_name {shown(name)}; every image needs the name of its file")
        if id_ in names:
            raise DataError(f"{file}: image id {id_} is given to {names[id_]} and {name}; give every image its own id")
        names[id_] = name
        size = [whole_number(record.get(key)) or 0 for key in ("height", "width")]
        if all(0 < side <= _LARGEST_SIDE for side in size):
            sizes[i] = size
        else:
            given = {key: record.get(key) for key in ("width", "height")}
            problems.add("without_size", f"image {id_}, {name}, has {shown(given)}")
    return list(names), list(names.values()), sizes


def _objects(
    annotations: list[Record],
    image_ids: list[int],
    names: list[str],
    categories: Categories,
    file: Path,
    problems: Problems,
) -> dict[str, np.ndarray]:
    """Read owners, boxes, labels, areas and crowd flags in the form of ``Listing``."""
    position = {id_: i for i, id_ in enumerate(image_ids)}
    index_of = {id_: i for i, id_ in enumerate(categories.ids)}
    owners, labels, boxes, areas, crowd = array("q"), array("q"), array("d"), array("d"), array("b")
    seen: set[object] = set()
    for i, record in enumerate(annotations):
        # Most entries are as they should be: these first tests decide quickly, and the functions look closer.
        given, image_id, category_id, box = map(record.get, ("id", "image_id", "category_id", "bbox"))
        name = given if given is not None else f"at place {i}"
        if not isinstance(given, (int, str, float)):
            given = None
        elif given in seen:
            problems.add("repeated_id", f"id {shown(given)}")
        seen.add(given)
        if type(image_id) is not int or image_id not in position:
            image_id = _id(record, "image_id", f"{file}: annotation {name!s:.40}", problems)
            if image_id not in position:
                problems.add("orphan", f"annotation {name!s:.40} of image {image_id}")
                continue
        place = position[image_id]
        if type(category_id) is not int or category_id not in index_of:
            category_id = _category_id(record, index_of, f"{file}: annotation {name!s:.40} of {names[place]}", problems)
        if type(box) is not list or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)) or not _finite(box):
            box = _box(record, f"{file}: annotation {name!s:.40} of {names[place]}", problems)
        area: Any = record.get("area")
        if type(area) not in _NUMBERS or not 0 < area < _LARGEST:
            area = number(area) or 0.0
            if area <= 0 < box[2] * box[3]:
                problems.add("area", f"annotation {name!s:.40} of {names[place]}: {shown(record.get('area'))}")
        if area > 1.01 * box[2] * box[3] + 1 and box[2] * box[3] > 0:  # a segmentation lies in its box
            problems.add("area", f"annotation {name!s:.40} of {names[place]}: {area:g} in a box of {box[2] * box[3]:g}")
            area = 0.0
        is_crowd: Any = record.get("iscrowd", 0)
        if type(is_crowd) is not int or is_crowd not in (0, 1):
            is_crowd = _is_crowd(is_crowd, f"{file}: annotation {name!s:.40} of {names[place]}")
        owners.append(place)
        labels.append(index_of[category_id])
        boxes.extend(box)
        areas.append(max(area, 0.0))
        crowd.append(is_crowd)
    return {
        "owners": np.array(owners, dtype=np.int64),
        "boxes": np.array(boxes, dtype=np.float64).reshape(-1, 4),
        "labels": np.array(labels, dtype=np.int64),
        "areas": np.array(areas, dtype=np.float64),
        "crowd": np.array(crowd, dtype=bool),
    }


def _finite(box: list[Any]) -> bool:
    """Tell whether all numbers are finite. The sum is NaN if one is; a whole number can be too large for a float."""
    return max(map(abs, box)) < _LARGEST and isfinite(sum(box))


def _category_id(record: Record, known: Mapping[int, int], own: str, problems: Problems) -> int:
    found = _id(record, "category_id", own, problems)
    if found not in known:
        raise DataError(
            f"{own} has category_id {found}, which the file does not list; add it to categories, or remove the annotation"
        )
    return found


def _box(record: Record, own: str, problems: Problems) -> list[float]:
    if "bbox" not in record:
        raise DataError(f"{own} has no 'bbox'; export the file again with boxes")
    given: Any = record["bbox"]
    values = [number(value) for value in cast("list[object]", given)] if isinstance(given, list) else []
    box = [value for value in values if value is not None]
    if len(values) != 4 or len(box) != 4:
        raise DataError(f"{own} has bbox {shown(given)}; it needs four finite numbers: x, y, width, height")
    if any(isinstance(value, str) for value in cast("list[object]", given)):
        problems.add("id_as_text", f"bbox {shown(given)}")
    return box


def _is_crowd(given: object, own: str) -> bool:
    text = str(given).strip().lower()
    if not isinstance(given, (bool, int, float, str, type(None))) or text not in _FALSE | _TRUE:
        raise DataError(f"{own} has iscrowd {shown(given)}; write 0 for a single object, 1 for a crowd")
    return text in _TRUE
