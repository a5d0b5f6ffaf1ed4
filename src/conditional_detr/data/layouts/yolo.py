"""YOLO: a label file per image, with a data.yaml, Darknet's obj.data, or just folders."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.data.images import SUFFIXES
from conditional_detr.data.layouts import SPLITS, Split
from conditional_detr.data.layouts.locating import (
    OTHER_SUFFIXES,
    Folder,
    any_below,
    child,
    files_below,
    files_in,
    images_below,
    is_test,
    locate_images,
    of_split,
    split_folders,
)
from conditional_detr.data.layouts.text_files import count_similar, find_names, read_head, read_lines
from conditional_detr.data.layouts.yolo_files import DataFile, Line, find_data_files, read_data_file, read_labels
from conditional_detr.data.listing import Listing, ObjectArrays, Objects
from conditional_detr.data.problems import Problems
from conditional_detr.errors import DataError
from conditional_detr.record import Categories

LOOKED_FOR = "data.yaml, obj.data, SPLIT.txt, images/SPLIT with labels/SPLIT, SPLIT/images with SPLIT/labels"

_TEXT = {".txt"}
_LAST_IMAGES = re.compile(r"(.*/|)(i)mages/(.*)", re.IGNORECASE | re.DOTALL)
_LINE = re.compile(r"\s*\d+(\.0*)?([\s,;]+[-+.\d]|\s*$)")  # beginning of a label file
_NO_LABELS = re.compile(
    r"(classes|labels|labelmap|predefined_classes|_darknet|obj|train|val|valid|validation|trainval|test|readme.*|license.*)",
    re.IGNORECASE,
)
_LOOKED_AT = 10  # files or lines that are tried before the others


@dataclass(frozen=True)
class _Split:
    """Files of a split. source: for messages. root: folder of the data set. images: folders and lists of images.

    data: None without data.yaml or obj.data. test: whether it is the test split.
    """

    source: Path
    root: Path
    images: list[Path]
    data: DataFile | None
    test: bool


def recognize(root: Path, split: Split) -> bool:
    files = find_data_files(root)
    if not files:
        return bool(_image_sources(root, split))
    try:
        return len(files) > 1 or bool(_written(read_data_file(files[0]), split))
    except DataError:
        return True  # so that ``read`` tells what is wrong


def read(settings: DataSettings, split: Split) -> Listing:
    assert settings.root is not None
    found = _find(settings.root, split)
    given = settings.files_of(split)[1]
    sources = [given] if given else found.images
    problems = Problems(found.source)
    if found.test:
        problems.add("test_split", found.source)
    skip = settings.on_error == "skip"
    folder, images = _relative(_images(sources, found, f"data.{split}_images", problems, skip), found.root)
    labels = _label_files(images, folder, found.source, problems)
    names = _names(settings, found, [source for source in sources if source.is_dir()], labels)
    count_similar(names.values(), problems)
    categories = Categories(tuple(names), tuple(names.values()))
    return Listing(
        source=found.source,
        folder=folder,
        categories=categories,
        image_ids=range(1, len(images) + 1),
        file_names=images,
        sizes=np.zeros((len(images), 2), dtype=np.int32),
        fractions=True,
        problems=problems,
        **_objects(labels, categories, found, problems),
    )


# --- splits ---


def _find(root: Path, split: Split) -> _Split:
    files = find_data_files(root)
    if len(files) > 1:
        raise DataError(f"{files[0]} and {files[1]} may both describe the data; set data.root to one of them")
    if not files:
        sources = _image_sources(root, split)
        if not sources:
            raise DataError(f"{root} has no {split} split in YOLO layout; looked for {LOOKED_FOR}")
        if len(sources) > 1:
            raise DataError(f"{sources[0]} and {sources[1]} are both there; remove one of them")
        source = sources[0]
        test = split == "val" and (is_test(source.name) or is_test(source.parent.name))
        return _Split(source, root, sources, None, test)
    data = read_data_file(files[0])
    written = _written(data, split)
    if not written:
        raise DataError(f"{data.file} has no {split!r}; add the folder of its images")
    images = [_resolve(each, data) for each in written]
    source = images[0] if len(images) == 1 else data.file
    base = data.file.parent / data.path
    return _Split(
        source, base if base.is_dir() else data.file.parent, images, data, split == "val" and data.val == data.test
    )


def _written(data: DataFile, split: Split) -> tuple[str, ...]:
    return {"train": data.train, "val": data.val, "test": data.test}[split]


def _resolve(written: str, data: DataFile) -> Path:
    """Return the folder or list that a data.yaml names.

    A path refers to the folder ``path``, or else to that of the file. Exports for other machines begin with folders that do
    not exist here, such as "..": then these are left out.
    """
    path = PurePosixPath(written.strip().replace("\\", "/"))
    parent = data.file.parent
    bases = list(dict.fromkeys([parent / data.path, parent]))
    tails = [PurePosixPath(*path.parts[i:]) for i in range(1, len(path.parts))]
    tails = [
        tail for tail in tails if len(tail.parts) > 1 or of_split([tail.name], "train") or of_split([tail.name], "val")
    ]
    literal = [base / path for base in bases]
    shortened = [base / tail for tail in tails for base in bases]
    candidates = list(dict.fromkeys([*literal, *shortened]))
    existing = [candidate for candidate in candidates if candidate.exists()]
    if not existing:
        tried = ", ".join(map(str, candidates[:6]))
        raise DataError(f"{data.file}: {written!r} does not exist; tried {tried}; correct it, or set path")
    first = existing[0]
    if path.parts[:1] == ("..",) and first in literal:
        for other in existing[1:]:
            if other in shortened and not other.samefile(first):
                raise DataError(f"{data.file}: {written!r} may be {first} or {other}; write the whole path")
    return first


def _image_sources(root: Path, split: Split) -> list[Path]:
    """Return the folder or list of the images of a split in a data set without data.yaml; several if none is better."""
    texts = files_in(root, _TEXT)
    lists = {each: [name for name in of_split(texts, each) if _lists_images(root / name)] for each in SPLITS}
    if any(lists.values()):
        return [root / name for name in lists[split]]
    images, labels = child(root, "images"), child(root, "labels")
    if images is not None and labels is not None and any_below(labels, _TEXT):
        if any(split_folders(images, each, _has_images) for each in ("train", "val")):
            return split_folders(images, split, _has_images)
        return [images] if split == "train" and _has_images(images) else []
    if any(split_folders(root, each, _labeled) for each in ("train", "val")):
        return [child(part, "images") or part for part in split_folders(root, split, _labeled)]
    return [root] if split == "train" and _beside(root) else []


def _has_images(folder: Path) -> bool:
    return any_below(folder, SUFFIXES)


def _lists_images(file: Path) -> bool:
    try:
        lines = read_lines(file)[:_LOOKED_AT]
    except DataError:
        return False
    return bool(lines) and all(os.path.splitext(line)[1].lower() in SUFFIXES for line in lines)


def _labeled(folder: Path) -> bool:
    """Tell whether the folder of a split holds images and labels."""
    images, labels = child(folder, "images"), child(folder, "labels")
    if images is None:
        return _beside(folder)
    return _has_images(images) and ((labels is not None and any_below(labels, _TEXT)) or _beside(images))


def _beside(folder: Path) -> bool:
    """Tell whether images in a folder have label files beside them."""
    stems = {os.path.splitext(image)[0] for image in files_in(folder, SUFFIXES)}
    texts = [text for text in files_in(folder, _TEXT) if os.path.splitext(text)[0] in stems]
    return any(_is_label_file(folder / text) for text in texts[:_LOOKED_AT])


def _is_label_file(file: Path) -> bool:
    return _LINE.match(read_head(file, 200).decode("utf-8-sig", "replace").lstrip()) is not None


# --- images ---


def _images(sources: Sequence[Path], found: _Split, setting: str, problems: Problems, skip: bool) -> list[str]:
    """Return the paths of all images in folders and lists."""
    images: list[str] = []
    for source in sources:
        if source.is_dir():
            below = images_below(source)
            others = files_below(source, OTHER_SUFFIXES)
            problems.add("unsupported", source / others[0] if others else "", len(others))
            if not below:
                raise DataError(
                    f"{source} holds no images ({', '.join(sorted(SUFFIXES))}); correct the path, or add images"
                )
            images += [os.path.join(source, name) for name in below]
        elif source.suffix.lower() == ".txt":
            images += _listed(source, found, setting, problems, skip)
        else:
            raise DataError(f"{source} is neither a folder of images nor a .txt list of them; correct the path")
    return images


def _listed(source: Path, found: _Split, setting: str, problems: Problems, skip: bool) -> list[str]:
    """Return the paths of the images in a list. Folders at the beginning that exist on another machine only are left out."""
    lines = [PurePosixPath(line.replace("\\", "/")) for line in read_lines(source)]
    if not lines:
        raise DataError(f"{source} lists no images; add at least one")
    bases = [found.root, source.parent, *([found.data.file.parent] if found.data else [])]
    tries = ((line, i, base) for line in lines[:_LOOKED_AT] for i in range(len(line.parts)) for base in bases)
    fits = ((base, i) for line, i, base in tries if (base / PurePosixPath(*line.parts[i:])).is_file())
    best, skipped = next(fits, (bases[0], 0))
    names = [str(PurePosixPath(*line.parts[skipped:])) for line in lines]
    tiers = [[base] for base in (best, *bases)]
    folder, files = locate_images(names, tiers, source=source, setting=setting, problems=problems, skip=skip)
    return [os.path.join(folder, file) for file in files if file is not None]


def _relative(images: list[str], root: Path) -> tuple[Path, list[str]]:
    """Return the folder of the data set, or else the nearest one that holds all images, and the images relative to it, sorted."""
    folder = str(root)
    if not all(image.startswith(os.path.join(folder, "")) for image in images):
        folder, images = str(Path.cwd() / root), [os.path.join(os.getcwd(), image) for image in images]
    if not all(image.startswith(os.path.join(folder, "")) for image in images):
        folder = os.path.commonpath([os.path.dirname(image) for image in images])
    skipped = len(os.path.join(folder, ""))
    return Path(folder), sorted(image[skipped:].replace(os.sep, "/") for image in images)


# --- labels ---


def _label_files(images: list[str], folder: Path, source: Path, problems: Problems) -> list[Path | None]:
    """Return the label file of each image, or None where there is none. Raises ``DataError`` when there is none at all."""
    files = Folder(Path())
    paths = [os.path.join(folder, image) for image in images]
    found = [next(filter(files.has, _candidates(path)), None) for path in paths]
    missing = [image for image, label in zip(images, found, strict=True) if label is None]
    if len(missing) == len(images):
        looked = " and ".join(dict.fromkeys(os.path.dirname(candidate) for candidate in _candidates(paths[0])))
        raise DataError(f"{source}: none of the {len(images)} images has a label file; looked in {looked}")
    problems.add("without_file", missing[0] if missing else "", len(missing))
    pairs = {(os.path.dirname(label), os.path.dirname(path)) for label, path in zip(found, paths, strict=True) if label}
    for labels, parent in sorted(pairs):
        _, _, names = next(os.walk(parent or "."), ("", [], []))
        stems = {os.path.splitext(name)[0] for name in names if not name.lower().endswith(".txt")}
        texts = [os.path.splitext(name)[0] for name in files_in(Path(labels), _TEXT)]
        orphans = [text for text in texts if text not in stems and not _NO_LABELS.fullmatch(text)]
        problems.add("orphan", os.path.join(labels, f"{orphans[0]}.txt") if orphans else "", len(orphans))
    return [Path(label) if label else None for label in found]


def _candidates(image: str) -> list[str]:
    """Return the places of a label file: the last folder "images" replaced by "labels", and beside the image."""
    path = os.path.splitext(image)[0].replace(os.sep, "/")
    matched = _LAST_IMAGES.fullmatch(path)
    places = [f"{matched[1]}{'L' if matched[2] == 'I' else 'l'}abels/{matched[3]}.txt"] if matched else []
    return [*places, f"{path}.txt"]


def _names(
    settings: DataSettings, found: _Split, folders: Iterable[Path], labels: Iterable[Path | None]
) -> dict[int, str]:
    """Return the names of the classes by number: those of data.yaml, of a file such as classes.txt, or of the settings."""
    names = dict(found.data.names) if found.data else {}
    source = found.data.file if found.data else found.source
    if not names:
        beside = {file.parent for file in labels if file}
        labels_folder = child(found.root, "labels")
        places = [found.root, *([labels_folder] if labels_folder else []), *folders, *sorted(beside)]
        if listed := find_names(places):
            names, source = dict(enumerate(listed[0])), listed[1]
    given = settings.categories
    if given and names and tuple(names.values()) != given:
        raise DataError(
            f"{source} names the classes {', '.join(names.values()):.100}; leave out data.categories, or correct one"
        )
    if not names and not given:
        raise DataError(
            f"{source} gives the classes no names; write them to {found.root / 'classes.txt'}, or set data.categories"
        )
    names = names or dict(enumerate(given))
    count = found.data.count if found.data else None
    if count is not None and count not in (len(names), max(names) + 1):
        raise DataError(f"{source} gives {len(names)} names, but nc is {count}; correct one of them")
    return names


def _objects(labels: Sequence[Path | None], categories: Categories, found: _Split, problems: Problems) -> ObjectArrays:
    label_of = {number: label for label, number in enumerate(categories.ids)}
    objects = Objects(problems)
    outside: list[Line] = []
    for owner, file in enumerate(labels):
        for line in read_labels(file, found.data.extra if found.data else 0) if file else ():
            if line.class_number not in label_of:
                raise DataError(
                    f"{line.place} has class {line.class_number}, but {_known(categories)}; correct it, or name the class"
                )
            if not line.inside:
                outside.append(line)
            if line.outline:
                problems.add("outline", line.place)
            objects.add(owner, label_of[line.class_number], line.box, name=line.place)
    if outside:
        x, y, w, h = outside[0].box
        raise DataError(
            f"{len(outside)} lines of label files have coordinates outside 0..1, the first is {outside[0].place}, with a box "
            f"from {x:.6g}, {y:.6g} to {x + w:.6g}, {y + h:.6g}; write fractions: divide x and width by the width of the "
            f"image, y and height by its height"
        )
    return objects.arrays()


def _known(categories: Categories) -> str:
    """Return which classes there are."""
    if categories.ids == tuple(range(len(categories))):
        return f"there are {len(categories)} classes, 0 to {len(categories) - 1}"
    return f"the classes are {', '.join(map(str, categories.ids)):.100}"
