"""Further formats in the folder of ``cdetr predict``, and whether this command wrote what is there already.

A file beside them holds the checksums of what was written, because not every format has a place for a mark.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from conditional_detr.cli.outputs import PROGRAM, name_in_url, stem_of, would_replace
from conditional_detr.errors import SettingsError, newer_version
from conditional_detr.files import checksum, read_json, sync, write_text
from conditional_detr.inference.formats import MODEL, DetectedImage, DetectedObject, DetectionSet, Format, load

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector
    from conditional_detr.record import Categories

BASE = "coco"  # is always written
RECORD = "formats.json"
VERSION = 1  # of the record, under "info"
_CHANGED = "of something else"  # in the place of a checksum

Records = Iterator[tuple[int, dict[str, Any]]]


def chosen(names: Sequence[str], out: Path | None) -> list[Format]:
    """Return the formats to be written after the COCO data. Raises ``SettingsError`` for those that can't be written."""
    formats = [load(name) for name in dict.fromkeys(names) if name != BASE]
    if formats and out is None:
        raise SettingsError("--format writes files, and --json alone writes none; name a folder with --out")
    if formats and out is not None:
        refuse_others(out, formats)
    return formats


def check_categories(formats: Sequence[Format], categories: "Categories") -> None:
    """Raise ``DataError`` for categories whose names a format can't tell apart."""
    if any(format_.XML for format_ in formats):
        from conditional_detr.data.writers.voc import xml_labels

        xml_labels(categories, MODEL)


def renamed(formats: Sequence[Format], files: Sequence[str | Path], pictures: Mapping[str | Path, str]) -> str:
    """Return a sentence about images whose name is taken or too long for the files of a format; empty without any."""
    if not any(format_.PER_IMAGE for format_ in formats):
        return ""
    other = [(file, name) for file in files if (name := pictures[file].removesuffix(".jpg")) != stem_of(file)]
    if not other:
        return ""
    file, name = other[0]
    return f"names that are taken or too long are changed in files named after images, such as {name} for {file}"


def refuse_others(out: Path, formats: Sequence[Format]) -> None:
    """Raise ``SettingsError`` when a format would replace what this command did not write, or what was changed since."""
    there = {name.casefold(): out / name for name in os.listdir(out)} if out.is_dir() else {}
    written = _read(there[RECORD]) if RECORD in there else {}
    for format_ in formats:
        path = there.get(format_.NAME)
        if path is not None and _digest(path) not in written.get(format_.NAME, ()):
            raise would_replace(path)


def write_all(out: Path, formats: Sequence[Format], found: DetectionSet) -> None:
    """Write the formats, each completely before it replaces an earlier one. A kill leaves nothing that is not in the record."""
    for format_ in formats:
        path, partial = out / format_.NAME, out / f".{format_.NAME}.partial"
        _remove(partial)
        try:
            format_.write(partial, found)
            refuse_others(out, [format_])  # predicting may have taken hours
            written = _read(out / RECORD) if (out / RECORD).exists() else {}
            digest = _digest(partial)
            _record(out, {**written, format_.NAME: [*written.get(format_.NAME, []), digest]})
            _replace(partial, path)
            _record(out, {**written, format_.NAME: [digest]})
        finally:
            _remove(partial)


def detection_set(
    detector: "Detector",
    model: str,
    files: Sequence[str | Path],
    pictures: Mapping[str | Path, str],
    records: Callable[[], Records],
) -> DetectionSet:
    """Return the detections in the lines of images. model: its fingerprint. records: numbers of images, from 1, with their lines."""
    from conditional_detr import __version__

    folder = _common_folder(files)
    rows = {id_: row for row, id_ in enumerate(detector.categories.ids)}

    def images() -> Iterator[DetectedImage]:
        for number, record in records():
            file = files[number - 1]
            objects = [
                DetectedObject(
                    rows[each["category_id"]],
                    each["category_id"],
                    each["category_name"],
                    tuple(each["bbox"]),
                    each["score"],
                )
                for each in record["objects"]
            ]
            yield DetectedImage(
                number,
                record["file_name"],
                pictures[file].removesuffix(".jpg"),
                _place(file, folder),
                record["width"],
                record["height"],
                objects,
            )

    return DetectionSet(detector.categories, f"conditional-detr {__version__} {model[:8]}", images)


def _common_folder(files: Sequence[str | Path]) -> str:
    """Return the folder that all images on this machine are below; empty where there is none."""
    folders = [os.path.dirname(os.path.abspath(file)) for file in files if isinstance(file, Path)]
    try:
        return os.path.commonpath(folders)
    except ValueError:  # none, or several disks of Windows
        return ""


def _place(file: str | Path, folder: str) -> str:
    if not isinstance(file, Path):
        return name_in_url(file)
    return Path(os.path.relpath(os.path.abspath(file), folder) if folder else file.name).as_posix()


def _read(path: Path) -> dict[str, list[str]]:
    """Return the checksums of what was written, by name. Raises ``SettingsError`` for a file that this command did not write."""
    if path.is_symlink() or not path.is_file():
        raise would_replace(path)
    content = read_json(path, SettingsError, "move it away, or name another folder with --out")
    info, files = content.get("info"), content.get("files")
    if not isinstance(info, dict) or not isinstance(files, dict) or info.get("program") != PROGRAM:
        raise would_replace(path)
    if (version := info.get("version")) != VERSION:
        raise SettingsError(newer_version(path, "formats", version, VERSION)) if version else would_replace(path)
    return cast("dict[str, list[str]]", files)


def _record(out: Path, written: Mapping[str, Sequence[str]]) -> None:
    write_text(out / RECORD, json.dumps({"info": {"program": PROGRAM, "version": VERSION}, "files": written}) + "\n")


def _digest(path: Path) -> str:
    """Return the checksum of a file, or of the names and contents of all files in a folder. Links have none."""
    if path.is_symlink():
        return _CHANGED
    if not path.is_dir():
        return checksum(path) if path.is_file() else _CHANGED
    digest = hashlib.sha256()
    for name in sorted(os.listdir(path)):
        inner = _digest(path / name)
        if inner == _CHANGED:
            return _CHANGED
        digest.update(f"{len(os.fsencode(name))} ".encode() + os.fsencode(name) + inner.encode())
    return digest.hexdigest()


def _replace(partial: Path, path: Path) -> None:
    if partial.is_dir():
        earlier = path.with_name(f".{path.name}.replaced")  # a folder can't be replaced by a folder at once
        _remove(earlier)
        if path.exists():
            os.replace(path, earlier)
        os.replace(partial, path)
        _remove(earlier)
    else:
        sync(partial)
        os.replace(partial, path)
    sync(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
