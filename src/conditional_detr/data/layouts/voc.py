"""Pascal VOC: an XML file per image, and lists or folders for the splits."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.data.images import SUFFIXES
from conditional_detr.data.layouts import SPLITS, Split
from conditional_detr.data.layouts.locating import (
    Folder,
    any_below,
    child,
    files_below,
    files_in,
    images_below,
    is_test,
    of_split,
    split_folders,
)
from conditional_detr.data.layouts.text_files import check_names, count_similar, find_names, read_head, read_lines
from conditional_detr.data.layouts.voc_xml import XMLAnnotation, read_xml
from conditional_detr.data.listing import Listing, ObjectArrays, Objects
from conditional_detr.data.problems import Problems
from conditional_detr.errors import DataError
from conditional_detr.record import Categories

LOOKED_FOR = "Annotations/*.xml with or without ImageSets/Main/SPLIT.txt, SPLIT/*.xml"

# Name of an XML file, relative to the folder of annotations -> its contents, in the order of the images.
XMLFiles = dict[str, XMLAnnotation]

_XML = {".xml"}
_ANNOTATIONS = ("Annotations", "xml", "xmls")
_IMAGES = ("JPEGImages", "images", "img", "imgs")
_ROOT_ELEMENT = re.compile(rb"<(\w+:)?annotation[\s>]")
_HEAD, _LOOKED_AT = 4096, 5  # bytes and files in which the root element is looked for
_FLAG = re.compile(r"\s+(-?[01])$")  # of an image in the list of a class: 1 present, 0 difficult, -1 absent
_FEWEST_ONES = 3  # corners at 1 from which pixels may be counted from 1


class _Place(NamedTuple):
    """Files of a split. source: list or folder that defines it. annotations: root of the XML files. around: folder with both."""

    source: Path
    annotations: Path
    around: Path

    @property
    def listed(self) -> bool:
        return self.source.is_file()


def recognize(root: Path, split: Split) -> bool:
    return any(_places(base, split) for base in _bases(root))


def read(settings: DataSettings, split: Split) -> Listing:
    assert settings.root is not None
    bases = _bases(settings.root)
    if len(bases) > 1:
        raise DataError(f"{bases[0]} and {bases[1]} are two Pascal VOC data sets; set data.root to one of them")
    places = _places(bases[0], split) if bases else []
    if not places:
        raise DataError(f"{settings.root} has no {split} split in Pascal VOC layout; looked for {LOOKED_FOR}")
    place = places[0]
    if len(places) > 1:
        raise DataError(f"{place.source} and {places[1].source} are both there; remove one of them")
    problems = Problems(place.source)
    if split == "val" and is_test(place.source.name):
        problems.add("test_split", place.source.name)
    names = _listed(place) if place.listed else _xml_names(place)
    if not names:
        raise DataError(f"{place.source} lists no images; add at least one")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    problems.add("same_file", repeated[0] if repeated else "", len(names) - len(set(names)))
    files = {name: read_xml(place.annotations / name) for name in dict.fromkeys(names)}
    images = settings.files_of(split)[1]
    folder, located = _locate(files, place, images, f"data.{split}_images", problems, settings.on_error == "skip")
    categories = _categories(settings, bases[0], place, files, problems)
    files = {name: files[name] for name in located}
    return Listing(
        source=place.source,
        folder=folder,
        categories=categories,
        image_ids=range(1, len(files) + 1),
        file_names=list(located.values()),
        sizes=np.array([file.size for file in files.values()], dtype=np.int32),
        problems=problems,
        **_objects(settings, place, files, categories, problems),
    )


# --- folders and lists ---


def _bases(root: Path) -> list[Path]:
    """Return the data sets in a folder: itself, or those inside a VOCdevkit."""
    if _is_base(root):
        return [root]
    inside = (path for depth in (1, 2, 3) for path in sorted(root.glob("/".join(["VOC*"] * depth))))
    return [path for path in inside if _is_base(path)]


def _is_base(path: Path) -> bool:
    return bool(_places(path, "train") or _places(path, "val"))


def _places(base: Path, split: Split) -> list[_Place]:
    """Return the places of a split; several if none is better."""
    folder = child(base, *_ANNOTATIONS)
    if folder is not None and any_below(folder, _XML):
        lists = _lists(base)
        if any(lists.values()):
            return [_Place(file, folder, base) for file in lists[split]]
        if any(split_folders(folder, each, _has_xml) for each in ("train", "val")):
            return [_Place(part, folder, base) for part in split_folders(folder, split, _has_xml)]
        return [_Place(folder, folder, base)] if split == "train" else []
    if any(split_folders(base, each, _has_annotations) for each in ("train", "val")):
        parts = split_folders(base, split, _has_annotations)
        return [_Place(part, _annotations_of(part), part) for part in parts]
    return [_Place(base, base, base)] if split == "train" and _holds_annotations(base) else []


def _lists(base: Path) -> dict[Split, list[Path]]:
    """Return the files that list the images of each split."""
    sets = child(base, "ImageSets") or base
    found: dict[Split, list[Path]] = {}
    for place in (child(sets, "Main") or sets, sets, base):
        names = files_in(place, {".txt"})
        found = {split: [place / name for name in of_split(names, split)] for split in SPLITS}
        found["train"] = found["train"] or [place / name for name in names if name.lower() == "trainval.txt"]
        if any(found.values()):
            break
    return found


def _has_xml(folder: Path) -> bool:
    return any_below(folder, _XML)


def _annotations_of(folder: Path) -> Path:
    """Return the folder with the XML files in the folder of a split: a subfolder, or itself."""
    inside = child(folder, *_ANNOTATIONS)
    return inside if inside is not None and _has_xml(inside) else folder


def _has_annotations(folder: Path) -> bool:
    return _holds_annotations(_annotations_of(folder))


def _holds_annotations(folder: Path) -> bool:
    """Tell whether a folder itself holds annotations of Pascal VOC rather than other XML."""
    return any(_ROOT_ELEMENT.search(read_head(folder / name, _HEAD)) for name in files_in(folder, _XML)[:_LOOKED_AT])


def _xml_names(place: _Place) -> list[str]:
    """Return the XML files of a split without list, relative to the folder of annotations, by name."""
    if place.source != place.annotations and place.annotations in place.source.parents:
        return [f"{place.source.name}/{name}" for name in files_below(place.source, _XML)]
    return files_below(place.annotations, _XML)


def _listed(place: _Place) -> list[str]:
    """Return the XML files of the images that a list names, in its order, relative to the folder of annotations."""
    names = _Names(place.annotations)
    lines = read_lines(place.source)
    if place.source.stem.lower() == "trainval":
        held_out = {names.find(line) for file in _lists(place.around)["val"] for line in read_lines(file)}
        lines = [line for line in lines if names.find(line) not in held_out]
    found = [names.find(line) for line in lines]
    missing = [line for line, name in zip(lines, found, strict=True) if name is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(lines)} images in {place.source} have no XML file in {place.annotations}, the first "
            f"is {missing[0]!r:.100}; add the files or remove their lines"
        )
    absent = [line for line in lines if _FLAG.search(line) and line.endswith("-1")]
    if absent:
        raise DataError(f"{place.source} lists images without its category ({absent[0]!r:.100}); list the images only")
    return [name for name in found if name is not None]


class _Names:
    """XML files in a folder, found by the lines of a list: a name with or without folder, suffix and flag."""

    def __init__(self, folder: Path) -> None:
        files = files_below(folder, _XML)
        stems = Counter(PurePosixPath(file).stem for file in files)
        self._files = {stem: file for file in files if stems[stem := PurePosixPath(file).stem] == 1}
        self._files.update({os.path.splitext(file)[0]: file for file in files})

    def find(self, line: str) -> str | None:
        for text in (line, _FLAG.sub("", line), line.split()[0]):
            path = PurePosixPath(text.strip('"').replace("\\", "/"))
            bare = path.with_suffix("") if path.suffix.lower() in SUFFIXES | _XML else path
            for form in (str(path), str(bare), bare.name):
                if form in self._files:
                    return self._files[form]
        return None


# --- images ---


def _locate(
    files: XMLFiles, place: _Place, given: Path | None, setting: str, problems: Problems, skip: bool
) -> tuple[Path, dict[str, str]]:
    """Return the folder that holds the images, and XML file -> name of its image in it.

    given: folder of the images, or None to look for it. setting: name of the setting for this folder. skip: leave out XML
    files without image.
    """
    beside = [child(place.around, name) for name in _IMAGES]
    folders = [given] if given else [*(path for path in beside if path), place.around, place.annotations]
    best: tuple[Folder, list[str | None]] | None = None
    for path in dict.fromkeys(folders):
        folder = Folder(path)
        found = [_image_of(name, file, folder) for name, file in files.items()]
        if best is None or found.count(None) < best[1].count(None):
            best = folder, found
        if None not in found:
            break
    assert best is not None
    folder, found = best
    missing = [name for name, image in zip(files, found, strict=True) if image is None]
    if missing and not (skip and len(missing) < len(files)):
        looked = ", ".join(str(path) for path in dict.fromkeys(folders))
        raise DataError(
            f"{len(missing)} of {len(files)} annotations of {place.source} have no image in {looked}, the first is "
            f"{missing[0]}; add the images, remove the annotations, or set {setting}"
        )
    problems.add_images("missing", [f"{place.annotations / name} has no image in {folder.path}" for name in missing])
    located = {name: image for name, image in zip(files, found, strict=True) if image is not None}
    images = list(located.values())
    _compare_names({name: files[name] for name in located}, images, folder, problems)
    if not place.listed:
        folders_used = {os.path.dirname(image) for image in images}
        others = [each for each in images_below(folder.path) if os.path.dirname(each) in folders_used]
        others = sorted(set(others) - set(images))
        problems.add("unannotated", others[0] if others else "", len(others))
    return folder.path, located


def _image_of(name: str, file: XMLAnnotation, folder: Folder) -> str | None:
    """Return the image that an XML file is named after, or else the one that it names."""
    stem = os.path.splitext(name)[0]
    written = _written(file)
    exact = [f"{stem}{suffix}" for suffix in sorted(SUFFIXES) if folder.has(f"{stem}{suffix}")]
    if len(exact) > 1:
        exact = [image for image in exact if os.path.basename(image) == written] or exact
        if len(exact) > 1:
            raise DataError(f"{name} fits {exact[0]} and {exact[1]} in {folder.path}; name one of them in its filename")
    return exact[0] if exact else folder.find(stem) or (folder.find(written) if written else None)


def _written(file: XMLAnnotation) -> str:
    """Return the file name in an XML file without its folders."""
    return PurePosixPath(file.filename.replace("\\", "/")).name


def _compare_names(files: XMLFiles, images: Sequence[str], folder: Folder, problems: Problems) -> None:
    """Count names of XML files, and names in them, that are not those of their images."""
    for (name, file), image in zip(files.items(), images, strict=True):
        if PurePosixPath(name).stem not in (PurePosixPath(image).stem, PurePosixPath(image).name):
            problems.add("file_name", f"{name!r} is for {image!r}")
        other = os.path.join(os.path.dirname(image), _written(file))
        if other != image and _written(file) and folder.has(other):
            problems.add("other_name", f"{name} names {_written(file)!r:.60}, but is for {image}")
    repeated = [(image, count) for image, count in Counter(images).items() if count > 1]
    if repeated:
        problems.add("same_file", repeated[0][0], sum(count - 1 for _, count in repeated))


# --- categories and objects ---


def _categories(settings: DataSettings, base: Path, place: _Place, files: XMLFiles, problems: Problems) -> Categories:
    """Return the categories: those of the settings, of a file such as labels.txt, or all names in all XML files, sorted."""
    seen: dict[str, Path] = {}
    for name, file in files.items():
        for each in file.objects:
            seen.setdefault(each.name, place.annotations / name)
    if settings.categories:
        names, source = settings.categories, "data.categories"
    elif found := find_names([base]):
        names, source = found
    else:
        folders = {each.annotations for split in ("train", "val") for each in _places(base, split)}
        for folder in folders:
            for name in files_below(folder, _XML):
                if folder != place.annotations or name not in files:  # those are read already
                    seen.update({each.name: folder / name for each in read_xml(folder / name).objects})
        names, source = tuple(sorted(seen)), place.annotations
    if not names:
        raise DataError(f"{source} names no categories, because no annotation has an object; annotate some")
    check_names(seen, names, source)
    count_similar(names, problems)
    return Categories(tuple(range(1, len(names) + 1)), names)


def _objects(
    settings: DataSettings,
    place: _Place,
    files: XMLFiles,
    categories: Categories,
    problems: Problems,
) -> ObjectArrays:
    label_of = {name: label for label, name in reversed(list(enumerate(categories.names)))}
    objects = Objects(problems)
    shift = 1 if settings.voc_one_based else 0
    ones = zeros = 0
    at_limit = ""
    for owner, (name, file) in enumerate(files.items()):
        for each in file.objects:
            x0, y0, x1, y1 = each.corners
            own = f"{each.name!r:.40} at {list(each.corners)} in {name}"
            if shift and min(x0, y0) <= 0:
                raise DataError(
                    f"{place.annotations / name}: {each.name!r:.60} has a corner at {min(x0, y0):g}, so pixels are counted "
                    f"from 0; leave out data.voc_one_based"
                )
            ones += (x0 == 1) + (y0 == 1)
            zeros += (x0 < 1) + (y0 < 1)
            if x1 == file.size[1] or y1 == file.size[0]:
                at_limit = at_limit or own
            if each.outline:
                problems.add("outline", own)
            crowd = each.difficult and settings.voc_difficult == "ignore"
            if crowd:
                problems.add("difficult", own)
            x0, y0 = x0 - shift, y0 - shift
            objects.add(owner, label_of[each.name], (x0, y0, x1 - x0, y1 - y0), name=own, crowd=crowd)
    if not shift and at_limit and ones >= _FEWEST_ONES and not zeros:
        problems.add("one_based", at_limit, ones)
    return objects.arrays()
