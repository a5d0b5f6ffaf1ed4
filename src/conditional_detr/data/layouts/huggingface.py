"""Hugging Face: images with metadata.jsonl (imagefolder), or Parquet files that hold images and objects."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.data.layouts import Split
from conditional_detr.data.layouts.class_names import OBJECT_KEYS, declared_names
from conditional_detr.data.layouts.locating import (
    files_below,
    images_below,
    is_test,
    locate_images,
    of_split,
    split_folders,
)
from conditional_detr.data.layouts.parquet import Parquet
from conditional_detr.data.layouts.rows import Row, RowObject, file_name, image_ids, lines_of, objects_of, sizes_of
from conditional_detr.data.layouts.text_files import check_names, count_similar
from conditional_detr.data.listing import Listing, ObjectArrays, Objects
from conditional_detr.data.problems import Problems
from conditional_detr.errors import DataError
from conditional_detr.record import Categories

LOOKED_FOR = "SPLIT/metadata.jsonl, metadata.jsonl, data/SPLIT-*.parquet"

_METADATA = ("metadata.jsonl", "metadata.parquet")
_SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class _Files:
    """Files of a split. source: for messages. files: metadata or Parquet files with images.

    folder: root of the images of metadata; None for Parquet files with images. split_folder: folder that the names of the
    split's images begin with, or empty if all rows belong to the split. test: whether it is the test split.
    """

    source: Path
    files: list[Path]
    folder: Path | None = None
    split_folder: str = ""
    test: bool = False


def recognize(root: Path, split: Split) -> bool:
    try:
        return root.is_dir() and bool(_find(root, split))
    except DataError:
        return True  # so that ``read`` tells what is wrong


def read(settings: DataSettings, split: Split) -> Listing:
    assert settings.root is not None
    found = _find(settings.root, split)
    if not found:
        raise DataError(f"{settings.root} has no {split} split in Hugging Face layout; looked for {LOOKED_FOR}")
    if len(found) > 1:
        raise DataError(
            f"{found[0].source} and {found[1].source} are both there; set data.root to one, or remove the other"
        )
    files = found[0]
    problems = Problems(files.source)
    if files.test and split == "val":
        problems.add("test_split", files.source.name)
    rows = list(_rows(files))
    if not rows:
        raise DataError(f"{files.source} has no rows; add at least one image")
    images = settings.files_of(split)[1]
    skip = settings.on_error == "skip"
    folder, names = _images(files, rows, images, f"data.{split}_images", problems, skip)
    objects = [each for owner, row in enumerate(rows) for each in objects_of(owner, row)]
    categories, labels = _categories(settings, split, files, objects, problems)
    listing = Listing(
        source=files.source,
        folder=folder,
        categories=categories,
        image_ids=image_ids(rows),
        file_names=[name or "" for name in names],
        sizes=sizes_of(rows),
        problems=problems,
        **_arrays(objects, labels, problems),
    )
    return listing.without_images(np.array([name is None for name in names]))


# --- files ---


def _find(root: Path, split: Split) -> list[_Files]:
    """Return the files of a split; several if none is better."""
    for place in (root, root / "data"):
        if any(split_folders(place, each, _has_metadata) for each in _SPLITS):
            folders = split_folders(place, split, _has_metadata)
            return [_Files(folder, [_metadata(folder)], folder, test=is_test(folder.name)) for folder in folders]
        if _has_metadata(place):
            return _in_one_file(place, split)
    return _parquet_files(root, split)


def _has_metadata(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _METADATA)


def _metadata(folder: Path) -> Path:
    first, *others = [folder / name for name in _METADATA if (folder / name).is_file()]
    if others:
        raise DataError(f"{first} and {others[0]} are both there; remove one of them")
    return first


def _in_one_file(folder: Path, split: Split) -> list[_Files]:
    """Return the part of a file for all splits: the images in a folder such as train/, or else all for training."""
    file = _metadata(folder)
    first = {PurePosixPath(file_name(row)).parts[0] for row in _rows(_Files(file, [file], folder))}
    if any(of_split(first, each) for each in _SPLITS):
        return [_Files(file, [file], folder, name, is_test(name)) for name in of_split(first, split)]
    return [_Files(file, [file], folder)] if split == "train" else []


def _parquet_files(root: Path, split: Split) -> list[_Files]:
    """Return Parquet files whose names, or else folders, tell the split. Without any, all are for training.

    Files in different folders, apart from those of a split, are different configurations.
    """
    names = [name for name in files_below(root, {".parquet"}) if PurePosixPath(name).name not in _METADATA]
    words = {name: _split_word(name) for name in names}
    if not any(words.values()):
        chosen = names if split == "train" else []
    else:
        chosen = [name for word in of_split(set(words.values()), split) for name in names if words[name] == word]
    parts: dict[tuple[str, str], list[Path]] = {}
    for name in chosen:
        folder = "/".join(part for part in PurePosixPath(name).parent.parts if not _is_split(part))
        parts.setdefault((folder, words[name]), []).append(root / name)
    return [
        _Files(files[0] if len(files) == 1 else files[0].parent, files, test=split == "val" and is_test(word))
        for (_, word), files in parts.items()
    ]


def _is_split(word: str) -> bool:
    return any(of_split([word], each) for each in _SPLITS)


def _split_word(name: str) -> str:
    """Return the word in a path that names a split, or an empty text: train in data/train-00000-of-00001.parquet."""
    path = PurePosixPath(name)
    words = [*re.split(r"[-_.]+", path.stem), *reversed(path.parent.parts)]
    return next((word for word in words if _is_split(word)), "")


# --- rows ---


def _rows(files: _Files) -> Iterator[Row]:
    """Yield the rows of a split, without images."""
    for file in files.files:
        for row in lines_of(file) if file.suffix == ".jsonl" else _parquet_rows(file):
            if files.folder is not None and files.split_folder:
                if PurePosixPath(file_name(row)).parts[0] != files.split_folder:
                    continue
            yield row


def _parquet_rows(file: Path) -> Iterator[Row]:
    parquet = Parquet(file)
    wanted = ("file_name", "image_id", "width", "height", *OBJECT_KEYS)
    yield from parquet.rows([name for name in wanted if name in parquet.columns])


def _images(
    files: _Files, rows: list[Row], given: Path | None, setting: str, problems: Problems, skip: bool
) -> tuple[Path, Sequence[str | None]]:
    """Return the folder of the images, and the names of the files in it, as ``locate_images`` does.

    given: folder of the settings, or None.
    """
    if files.folder is None:
        return _unpacked(files.files)
    names = [file_name(row) for row in rows]
    folder, located = locate_images(
        names, [[given or files.folder]], source=files.source, setting=setting, problems=problems, skip=skip
    )
    if not files.split_folder:
        others = sorted(set(images_below(folder)).difference(name for name in located if name is not None))
        problems.add("unannotated", others[0] if others else "", len(others))
    return folder, located


def _unpacked(files: list[Path]) -> tuple[Path, list[str]]:
    """Unpack the images of Parquet files to the cache."""
    names: list[str] = []
    parent = Path()
    for file in files:
        parquet = Parquet(file)
        column = parquet.image_column()
        if column is None:
            raise DataError(
                f"{file} has no column of images, only {', '.join(parquet.columns):.100}; choose another file"
            )
        folder, inside = parquet.unpack_images(column)
        parent = folder.parent
        names += [f"{folder.name}/{name}" for name in inside]
    return parent, names


# --- categories and objects ---


def _categories(
    settings: DataSettings, split: Split, files: _Files, objects: list[RowObject], problems: Problems
) -> tuple[Categories, dict[int | str, int]]:
    """Return the categories, and the label of each number or name in the rows.

    Numbers are indices of the names that the data declares or the settings give; without any, they are the ids. Names are those
    of the settings, the declared ones, or else all in both splits, sorted.
    """
    assert settings.root is not None
    given, declared = settings.categories, ()
    if not given or any(isinstance(each.category, int) for each in objects):
        parquet = next((file for file in files.files if file.suffix == ".parquet"), None)
        declared = declared_names(settings.root, Parquet(parquet).features() if parquet else None)
    if given and declared and given != declared:
        raise DataError(
            f"{settings.root} names the categories {', '.join(declared):.100}; leave out data.categories, or correct one"
        )
    names = declared or given
    others = [] if names else _other_objects(settings.root, split)
    seen = {each.category: each.place for each in reversed([*objects, *others])}
    numbers = sorted(each for each in seen if isinstance(each, int))
    words = sorted(each for each in seen if isinstance(each, str))
    if numbers and words:
        raise DataError(
            f"{seen[words[0]]} has category {words[0]!r:.60}, but {seen[numbers[0]]} has {numbers[0]}; write all as names"
        )
    count_similar(names or words, problems)
    if words:
        names = names or tuple(words)
        check_names({word: seen[word] for word in words}, names, "data.categories" if given else settings.root)
        first = 0 if declared else 1
        return Categories(tuple(range(first, first + len(names))), names), {name: i for i, name in enumerate(names)}
    if names:
        unknown = [each for each in numbers if each not in range(len(names))]
        if unknown:
            raise DataError(
                f"{seen[unknown[0]]} has category {unknown[0]}, but there are {len(names)} names, for 0 to {len(names) - 1}; "
                f"correct it, or set data.categories"
            )
        return Categories(tuple(range(len(names))), names), {i: i for i in range(len(names))}
    if not numbers:
        raise DataError(f"{files.source} has no objects and names no categories; set data.categories")
    problems.add("unnamed", numbers[0], len(numbers))
    return Categories(tuple(numbers), tuple(map(str, numbers))), {each: i for i, each in enumerate(numbers)}


def _other_objects(root: Path, split: Split) -> Iterator[RowObject]:
    """Yield the objects of the other split, so that both splits have the same categories."""
    other: Split = "val" if split == "train" else "train"
    for files in _find(root, other)[:1]:
        for row in _rows(files):
            yield from objects_of(0, row)


def _arrays(objects: list[RowObject], labels: dict[int | str, int], problems: Problems) -> ObjectArrays:
    collected = Objects(problems)
    for each in objects:
        label = labels[each.category]
        collected.add(each.owner, label, each.box, name=each.place, area=each.area, crowd=each.crowd)
    return collected.arrays()
