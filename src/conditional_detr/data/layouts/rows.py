"""Read the rows of Hugging Face data sets: lines of metadata.jsonl, and what a row says of an image and its objects."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from reprlib import repr as shown  # short, and of any depth
from typing import Any, NamedTuple, cast

import numpy as np

from conditional_detr.data.layouts.class_names import CATEGORY_KEYS, OBJECT_KEYS
from conditional_detr.data.layouts.numbers import number, whole_number
from conditional_detr.errors import DataError
from conditional_detr.strict_json import read_json_text

Row = tuple[str, dict[str, Any]]  # place for messages, and values by column

_BOX_KEYS = ("bbox", "bboxes", "boxes")
_LARGEST_SIDE = 2**31 - 1


class RowObject(NamedTuple):
    """Object of a row. owner: index of its image. category: number or name. box: x, y, width, height in pixels."""

    owner: int
    category: int | str
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    place: str


def lines_of(file: Path) -> Iterator[Row]:
    """Yield the rows of a file with a JSON object per line."""
    if not file.is_file():  # reading from a pipe could block forever
        raise DataError(f"{file} can't be read, because it is no file; replace it")
    with file.open("rb") as opened:
        for i, line in enumerate(opened, 1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            try:
                values: Any = read_json_text(text.decode())
            except ValueError as error:  # JSONError and UnicodeDecodeError are among them
                reason = " ".join(str(error).split())[:200]
                raise DataError(
                    f"{file}:{i} is not a JSON object on one line ({reason}); write the file again"
                ) from error
            if not isinstance(values, dict):
                raise DataError(f"{file}:{i} is {shown(values)} instead of a JSON object; write the file again")
            yield f"{file}:{i}", cast("dict[str, Any]", values)


def file_name(row: Row) -> str:
    """Return the name of the image of a row. Raises ``DataError`` when there is none."""
    place, values = row
    name: Any = values.get("file_name")
    if not isinstance(name, str) or not name.strip() or "\0" in name or not PurePosixPath(name).name:
        raise DataError(f"{place} has file_name {shown(name)}; every row needs the name of its image")
    return name


def image_ids(rows: list[Row]) -> list[int] | range:
    """Return the ids that the rows give, or numbers from 1 unless all are different whole numbers."""
    ids = [whole_number(values.get("image_id")) for _, values in rows]
    known = [each for each in ids if each is not None]
    return known if len(set(known)) == len(rows) else range(1, len(rows) + 1)


def sizes_of(rows: list[Row]) -> np.ndarray:
    """Return (height, width), int32 ``[rows, 2]``; 0 where a row gives no valid size."""
    sizes = np.zeros((len(rows), 2), dtype=np.int32)
    for i, (_, values) in enumerate(rows):
        size = [whole_number(values.get(key)) or 0 for key in ("height", "width")]
        if all(0 < side <= _LARGEST_SIDE for side in size):
            sizes[i] = size
    return sizes


# --- objects ---


def objects_of(owner: int, row: Row) -> Iterator[RowObject]:
    """Yield the objects of a row. They are a list of dicts, or a dict of lists; bbox is x, y, width, height in pixels."""
    place, values = row
    key = next((key for key in OBJECT_KEYS if key in values), None)
    if key is None:
        raise DataError(f"{place} has no {OBJECT_KEYS[0]}, only {', '.join(values):.100}; add boxes and categories")
    given: Any = values[key]
    if isinstance(given, dict):
        given = _transposed(cast("dict[str, Any]", given), place)
    if not isinstance(given, (list, type(None))):
        raise DataError(f"{place} has {key} {shown(given)} instead of boxes and categories; write the row again")
    for i, each in enumerate(cast("list[Any]", given or [])):
        if not isinstance(each, dict):
            raise DataError(f"{place}: object {i} is {shown(each)}; write a bbox and a category")
        yield _object(owner, cast("dict[str, Any]", each), f"{place}: object {i}")


def _transposed(columns: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """Return a dict of lists as a list of dicts."""
    lists = {key: cast("list[Any]", value) for key, value in columns.items() if isinstance(value, list)}
    used = {key: value for key, value in lists.items() if key in (*_BOX_KEYS, *CATEGORY_KEYS, "area", "iscrowd")}
    lengths = {key: len(value) for key, value in used.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{count} of {key}" for key, count in lengths.items())
        raise DataError(f"{place} has lists of different lengths ({counted}); every object needs one of each")
    count = next(iter(lengths.values()), 0)
    return [{key: value[i] for key, value in used.items()} for i in range(count)]


def _object(owner: int, values: dict[str, Any], place: str) -> RowObject:
    given: Any = next((values[key] for key in _BOX_KEYS if key in values), None)
    box = [number(value) for value in cast("list[object]", given)] if isinstance(given, list) else []
    if len(box) != 4 or None in box:
        raise DataError(f"{place} has bbox {shown(given)}; it needs four finite numbers: x, y, width, height")
    x, y, w, h = (value or 0.0 for value in box)
    category: Any = next((values[key] for key in CATEGORY_KEYS if key in values), None)
    if not isinstance(category, str):
        category = whole_number(category)
    if category is None or category == "":
        raise DataError(f"{place} has no category that is a whole number or a name; add one")
    crowd: Any = values.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise DataError(f"{place} has iscrowd {shown(crowd)}; write 0 for a single object, 1 for a crowd")
    return RowObject(owner, category, (x, y, w, h), max(number(values.get("area")) or 0.0, 0.0), bool(crowd), place)
