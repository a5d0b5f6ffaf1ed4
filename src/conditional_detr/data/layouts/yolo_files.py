"""Read the files of YOLO data sets: data.yaml, Darknet's obj.data, and label files."""

import codecs
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shown  # short, and of any depth
from typing import Any, NamedTuple, cast

from conditional_detr.config.core_yaml import MOST_BYTES, YAMLError, read_yaml
from conditional_detr.data.layouts.numbers import whole_number
from conditional_detr.data.layouts.text_files import read_head, read_lines, read_names, read_text
from conditional_detr.errors import DataError

Box = tuple[float, float, float, float]

# --- data.yaml and obj.data ---

_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_VAL = ("val", "valid", "validation", "test")
_SPLIT_KEY = re.compile(r"^['\"]?(train|val|valid|validation)['\"]?\s*[:=]", re.MULTILINE)
_NAMES_KEY = re.compile(r"^['\"]?(names|nc)['\"]?\s*[:=]", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """Contents of a data.yaml or obj.data.

    path: folder that the other paths refer to, as written; empty if there is none. train, val, test: folders or lists of
    images, as written; val is test where there is no other. names: names of the classes by number; empty if
    there are none. count: number of classes, if the file gives it. extra: numbers after the box in a line, 0 but for keypoints.
    """

    file: Path
    path: str = ""
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=lambda: {})
    count: int | None = None
    extra: int = 0


def find_data_files(root: Path) -> list[Path]:
    """Return the data.yaml or obj.data of a data set, or all files that may be it. root: its folder, or the file itself."""
    if root.is_file():
        return [root] if root.suffix.lower() in (".yaml", ".yml", ".data") else []
    usual = [root / name for name in _FILES if _head_matches(root / name, _SPLIT_KEY)]
    if usual:
        return usual[:1]
    yamls = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    found = [file for file in yamls if _head_matches(file, _SPLIT_KEY) and _head_matches(file, _NAMES_KEY)]
    return found or [file for file in sorted(root.glob("*.data")) if _head_matches(file, _SPLIT_KEY)]


def _head_matches(file: Path, key: re.Pattern[str]) -> bool:
    """Tell whether a text file has a key. Text that is not valid YAML can have it too, so that reading tells what is wrong."""
    head = read_head(file, MOST_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # reading it tells that it has to be UTF-8
        return key.search(head.decode("utf-16", "replace")) is not None
    return key.search(head.decode("utf-8-sig", "replace")) is not None


def read_data_file(file: Path) -> DataFile:
    """Read a data.yaml or obj.data. Raises ``DataError`` for anything invalid in it."""
    values = _darknet_values(file) if file.suffix.lower() == ".data" else _yaml_values(file)
    val = next((key for key in _VAL if values.get(key) not in (None, "", [])), "val")
    names = _names(values.get("names"), file)
    count = whole_number(values.get("nc"))
    if values.get("nc") is not None and (count is None or count < 1):
        raise DataError(f"{file}: nc is {shown(values['nc'])}; write the number of classes, or leave it out")
    path: Any = values.get("path")
    return DataFile(
        file=file,
        path=path.replace("\\", "/") if isinstance(path, str) else "",
        train=_paths(values.get("train"), f"{file}: train"),
        val=_paths(values.get(val), f"{file}: {val}"),
        test=_paths(values.get("test"), f"{file}: test"),
        names=names,
        count=count,
        extra=_extra(values.get("kpt_shape"), file),
    )


def _yaml_values(file: Path) -> dict[str, Any]:
    try:
        values = read_yaml(read_text(file))
    except YAMLError as error:
        raise DataError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{file} must hold keys such as train, val and names, got {shown(values)}")
    return cast("dict[str, Any]", values)


def _darknet_values(file: Path) -> dict[str, Any]:
    """Read lines of the form key = value. The value of names is a file with a name per line."""
    lines = [line for line in read_lines(file) if not line.startswith("#")]
    pairs = (line.partition("=") for line in lines)
    values: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs}
    values["nc"] = values.pop("classes", None)
    if values.get("names"):
        names = Path(values["names"].replace("\\", "/"))
        places = [file.parent / names, file.parent.parent / names, file.parent / names.name]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise DataError(
                f"{file}: names is {str(names)!r}, which is none of {', '.join(map(str, places))}; correct it"
            )
        values["names"] = list(read_names(found))
    return values


def _paths(value: Any, what: str) -> tuple[str, ...]:
    if value in (None, ""):
        return ()
    paths = cast("list[object]", value) if isinstance(value, list) else [value]
    if not paths or not all(isinstance(path, str) and path.strip() and "\0" not in path for path in paths):
        raise DataError(f"{what} is {shown(value)}; write a folder, a .txt list of images, or a list of these")
    return tuple(str(path) for path in paths)


def _names(value: Any, file: Path) -> dict[int, str]:
    """Return names by class number. They are written as a list, or as a map with any whole numbers."""
    if value is None:
        return {}
    if isinstance(value, list):
        pairs: list[tuple[object, object]] = list(enumerate(cast("list[object]", value)))
    elif isinstance(value, dict):
        pairs = list(cast("dict[object, object]", value).items())
    else:
        raise DataError(f"{file}: names is {shown(value)}; write a list of names, or a map of numbers to names")
    names: dict[int, str] = {}
    for key, name in pairs:
        number = whole_number(key)
        if number is None or number < 0 or number in names:
            raise DataError(f"{file}: names has the key {shown(key)}; number every class once, from 0")
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not str(name).strip():
            raise DataError(
                f"{file}: names calls class {number} {shown(name)}; write a name, in quotes if it is a YAML word"
            )
        names[number] = str(name)
    return dict(sorted(names.items()))


def _extra(shape: Any, file: Path) -> int:
    """Return the number of values of the keypoints of an object. shape: number of keypoints, and values per keypoint."""
    if shape is None:
        return 0
    sides = [whole_number(side) for side in cast("list[object]", shape)] if isinstance(shape, list) else []
    if len(sides) != 2 or sides[0] is None or sides[0] < 1 or sides[1] not in (2, 3):
        raise DataError(f"{file}: kpt_shape is {shown(shape)}; write [number of keypoints, 2 or 3]")
    return sides[0] * sides[1]


# --- label files ---

_SLACK = 0.01  # part of the image by which coordinates may exceed 0..1, for rounding
_FORM = "class, center x, center y, width, height"


class Line(NamedTuple):
    """Line of a label file. place: file and number of the line, for messages.

    box: x, y, width, height as fractions of the image. outline: True for a polygon or rotated box. inside: False if some
    coordinates are clearly outside 0..1, such as pixels.
    """

    place: str
    class_number: int
    box: Box
    outline: bool
    inside: bool


def read_labels(file: Path, extra: int = 0) -> list[Line]:
    """Read a label file. extra: numbers of keypoints after the box, as in ``DataFile``.

    Lines are ``class cx cy w h`` or ``class x1 y1 x2 y2 x3 y3 ...``, also mixed. Raises ``DataError`` for any other line.
    """
    name = str(file)
    lines = enumerate(read_text(file).split("\n"), 1)
    return [_line(text, f"{name}:{i}", extra) for i, text in lines if text and not text.isspace()]


def _line(text: str, place: str, extra: int) -> Line:
    first, *rest = text.split()
    class_number = int(first) if first.isdecimal() and len(first) < 10 else whole_number(first)
    values = _floats(rest, text)
    if class_number is None or values is None:
        remedy = "separate the numbers by spaces" if "," in text or ";" in text else "correct or remove the line"
        raise DataError(f"{place} is {text.strip()!r:.60} instead of {_FORM}; {remedy}")
    if class_number < 0:
        raise DataError(f"{place} has class {class_number}; classes count from 0")
    if len(values) == 4 or len(values) == 4 + extra:
        cx, cy, w, h = values[:4]
        inside = min(cx, cy) >= -_SLACK and max(cx, cy, w, h) <= 1 + _SLACK
        return Line(place, class_number, (cx - w / 2, cy - h / 2, w, h), False, inside)
    if extra or len(values) < 6 or len(values) % 2:
        raise DataError(f"{place} has {len(values) + 1} numbers; {_remedy(len(values), extra)}")
    _refuse_other_forms(place, values)
    xs, ys = values[::2], values[1::2]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return Line(place, class_number, box, True, min(values) >= -_SLACK and max(values) <= 1 + _SLACK)


def _refuse_other_forms(place: str, values: list[float]) -> None:
    """Raise ``DataError`` for numbers that are as many as those of a polygon and are something else."""
    if len(values) == 6 and values[5].is_integer() and 0 <= values[4] <= 1:
        raise DataError(
            f"{place} ends in {values[4]:g} {values[5]:g}, which look like a confidence and a track id behind a box; remove both, or add a "
            f"point where it is a polygon"
        )
    seen = values[6::3]
    if (len(values) - 4) % 3 == 0 and 2 in seen and {0, 1, 2}.issuperset(seen):
        raise DataError(
            f"{place} has {len(values) + 1} numbers, which look like a box with keypoints; set kpt_shape in data.yaml, such as "
            f"[{len(seen)}, 3]"
        )


def _floats(words: list[str], text: str) -> list[float] | None:
    """Return decimals, or None if one is not finite. Python would also take digits of other scripts and underscores."""
    if not text.isascii() or "_" in text:
        return None
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _remedy(count: int, extra: int) -> str:
    if extra:
        return f"with this kpt_shape it needs 5 or {5 + extra}: {_FORM}, keypoints"
    if count == 5:
        return f"5 are needed: {_FORM}; remove the last one if it is a confidence or the id of a track"
    if count == 0:
        return f"5 are needed: {_FORM}; give an image without objects an empty file"
    return f"5 are needed, {_FORM}, or a class and the x and y of at least 3 points; set kpt_shape for keypoints"
