"""Give a checkpoint the names of its categories, for files that have none."""

import logging
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.coco_categories import COCO_91, UNUSED
from conditional_detr.config.core_yaml import YAMLError, read_yaml
from conditional_detr.errors import SettingsError
from conditional_detr.files import read_json
from conditional_detr.record import Categories

logger = logging.getLogger(__name__)

GivenNames = str | Path | Sequence[str] | Mapping[int, str]
_FILES = "a text file with a name in every line, a COCO annotation file or a YOLO data.yaml"
_MOST_BYTES = 2**20  # of a text file


class Names(NamedTuple):
    """Category names, and their ids if these are known. source: where they are from, for messages."""

    names: list[str]
    ids: list[int] | None
    source: str


def with_names(checkpoint: Checkpoint, given: Names, source: object) -> Checkpoint:
    """Return a checkpoint with other category names. Its weights stay as they are.

    Without ids, names go to the rows of the class head in their order. With ids, they go to the rows with the same ids, if the
    checkpoint has exactly these ids; to the rows in ascending order of ids, if there are as many; to the rows numbered like the
    ids, if the largest id is the last row or the head has the 91 rows of the official code for COCO. source: name of the
    checkpoint, for messages. Raises ``SettingsError`` for names that fit in none of these ways.
    """
    current = checkpoint.categories
    categories = _assigned(given, current)
    if categories is None:
        raise SettingsError(_misfit(given, len(current), checkpoint.architecture.softmax, source), argument="names")
    logger.info(f"{source}: categories are named {_some(categories.names)} (before: {_some(current.names)})")
    return replace(checkpoint, record=replace(checkpoint.record, categories=categories))


def _assigned(found: Names, current: Categories) -> Categories | None:
    rows = len(current)
    if found.ids is None:
        return Categories(current.ids, tuple(found.names)) if len(found.names) == rows else None
    name_of = dict(zip(found.ids, found.names, strict=True))
    ids = sorted(name_of)
    if ids == sorted(current.ids):
        return Categories(current.ids, tuple(name_of[id_] for id_ in current.ids))
    if len(ids) == rows:
        return Categories(tuple(ids), tuple(name_of[id_] for id_ in ids))
    numbered = current.ids == tuple(range(rows)) and ids[0] >= 0
    if numbered and (ids[-1] == rows - 1 or ids[-1] < rows == len(COCO_91)):
        return Categories(current.ids, tuple(name_of.get(row, UNUSED) for row in range(rows)))
    return None


def _misfit(found: Names, rows: int, softmax: bool, source: object) -> str:
    also = ' (without that of "no object")' if softmax else ""
    if found.ids is None and len(found.names) < rows:
        remedy = (
            f"the official code has a row for every id from 0 to the largest: give a name for every row, {UNUSED} for one "
            f"without a category, or the COCO annotation file, which holds the ids"
        )
    else:
        remedy = "give the names that it was trained with, one for every row"
    return f"{found.source} gives {len(found.names)} category names, but the class head of {source} has {rows} rows{also}; {remedy}"


def _some(names: Iterable[str]) -> str:
    return reprlib.repr(list(names))[1:-1]


# --- reading ---


def read_names(given: GivenNames) -> Names:
    """Read category names, and ids where these are given.

    given: names, with "N/A" for rows of the class head without a category; a map from category ids to names; names with commas
    between them; or a file, which is a text file with a name in every line, a COCO annotation file (``.json``) or a
    YOLO data file (``.yaml``). Raises ``SettingsError`` for anything else.
    """
    if isinstance(given, Path) or (isinstance(given, str) and _is_path(given)):
        return _checked(_from_file(Path(given)))
    if isinstance(given, str):
        return _checked(Names(given.split(","), None, f"names {given!r}"))
    if isinstance(given, Mapping):
        return _checked(Names(list(given.values()), list(given), "names"))
    if isinstance(cast(object, given), Sequence):
        return _checked(Names(list(given), None, "names"))
    raise SettingsError(f"names is a {type(given).__name__}; give a list of names, or {_FILES}", argument="names")


def _is_path(text: str) -> bool:
    """Tell a path, which may not exist, from names."""
    if "," not in text and (Path(text).suffix or "/" in text):
        return True
    try:
        return Path(text).is_file()
    except OSError:  # many names are too long for a path
        return False


def _from_file(file: Path) -> Names:
    if not file.is_file():
        raise SettingsError(f"{file} is no file; give names, or {_FILES}", argument="names")
    if file.suffix == ".json":
        content = read_json(file, SettingsError, f"give {_FILES}")
        return _numbered(content.get("categories", content.get("id2label", content)), file)
    try:
        with file.open("rb") as stream:
            text = stream.read(_MOST_BYTES + 1).decode("utf-8-sig")
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it is longer than {_MOST_BYTES} characters")
        if file.suffix in (".yaml", ".yml"):
            content = read_yaml(text)
            return _numbered(content.get("names") if isinstance(content, dict) else content, file)
    except OSError as error:
        raise SettingsError(
            f"{file} can't be read ({error.strerror or error}); check the path", argument="names"
        ) from error
    except (UnicodeDecodeError, YAMLError, ValueError) as error:
        raise SettingsError(f"{file} holds no names ({error}); give {_FILES}", argument="names") from error
    return Names(text.rstrip().splitlines(), None, str(file))


def _numbered(content: Any, file: Path) -> Names:
    """Read COCO's list of categories, a list of names, or a map from ids to names."""
    try:
        if isinstance(content, Mapping):
            given = cast("Mapping[Any, Any]", content)
            return Names(list(given.values()), [int(id_) for id_ in given], str(file))
        if isinstance(content, list) and all(isinstance(each, Mapping) for each in cast("list[Any]", content)):
            records = cast("list[Mapping[str, Any]]", content)
            return Names([each["name"] for each in records], [each["id"] for each in records], str(file))
        if not isinstance(content, list):
            raise TypeError("no list of names")
        return Names(list(cast("list[Any]", content)), None, str(file))
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{file} holds no names of categories ({error!r}); give {_FILES}", argument="names"
        ) from error


def _checked(found: Names) -> Names:
    """Remove spaces around names. Raises ``SettingsError`` for what is no name or id, and for repetitions."""

    def refuse(what: str) -> None:
        raise SettingsError(f"{found.source} {what}", argument="names")

    if not found.names:
        refuse(f"holds no names; give {_FILES}")
    for name in found.names:
        if not isinstance(cast(object, name), str) or not name.strip():
            refuse(f"holds {reprlib.repr(name)}, which is no name; give one for every category")
    for id_ in found.ids or ():
        if type(cast(object, id_)) is not int or not 0 <= id_ < 2**63:
            refuse(f"holds {reprlib.repr(id_)}, which is no category id; give whole numbers from 0")
    names = [name.strip() for name in found.names]
    counts = Counter(name for name in names if name != UNUSED) if found.ids is None else Counter(found.ids)
    value, count = counts.most_common(1)[0] if counts else ("", 0)
    if count > 1:
        refuse(f"holds {reprlib.repr(value)} {count} times; give every category once")
    return found._replace(names=names)
