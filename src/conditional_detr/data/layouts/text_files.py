"""Read text files of data sets, and names of categories."""

import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from conditional_detr.data.problems import Problems
from conditional_detr.errors import DataError, did_you_mean

_NAME_FILES = ("classes.txt", "labels.txt", "obj.names", "_darknet.labels", "labelmap.txt")


def read_bytes(file: Path) -> bytes:
    """Return the contents of a file. Raises ``DataError`` when it can't be read, or is no file."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # reading from a pipe could block forever
            raise OSError(None, "it is not a file")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} can't be read ({getattr(error, 'strerror', None) or error}); check it") from error


def read_head(file: Path, size: int) -> bytes:
    """Return the first bytes of a file; none if it can't be read, or is no file."""
    try:
        if not file.is_file():  # as above
            return b""
        with file.open("rb") as opened:
            return opened.read(size)
    except OSError:
        return b""


def read_text(file: Path) -> str:
    """Return a text in UTF-8, without byte order mark. Raises ``DataError`` for anything else."""
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8; save it as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{file} holds null characters, so it is not text; replace it")
    return text


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text without the space around them. Empty lines are left out."""
    return [line for line in (line.strip() for line in read_text(file).split("\n")) if line]


# --- names of categories ---


def read_names(file: Path) -> tuple[str, ...]:
    """Return names of categories, one a line. CVAT's labelmap.txt has their colors, parts and actions after colons.

    Raises ``DataError`` for an empty line between names, because the order of the lines has a meaning.
    """
    lines = [line.strip() for line in read_text(file).rstrip().split("\n")]
    if file.name.lower() == "labelmap.txt":
        names = (line.partition(":")[0].strip() for line in lines if line and not line.startswith("#"))
        return tuple(name for name in names if name != "background")
    if "" in lines:
        raise DataError(f"{file} names no category in line {lines.index('') + 1}; write one name a line")
    return tuple(lines)


def find_names(folders: Iterable[Path]) -> tuple[tuple[str, ...], Path] | None:
    """Return the names of categories in a file such as classes.txt in the first of the folders that has one, and the file."""
    for folder in folders:
        for name in _NAME_FILES:
            if (file := folder / name).is_file():
                return read_names(file), file
        if len(others := sorted(folder.glob("*.names"))) == 1:
            return read_names(others[0]), others[0]
    return None


def check_names(seen: Mapping[str, object], names: tuple[str, ...], source: object) -> None:
    """Raise ``DataError`` unless all names seen are listed. seen: name -> file. source: what lists ``names``."""
    for name, file in seen.items():
        if name not in names:
            raise DataError(
                f"{file}: category {name!r:.60} is not among those of {source}{did_you_mean(name, names)}; "
                f"correct it, or add it there"
            )


def count_similar(names: Iterable[str], problems: Problems) -> None:
    """Count names of categories that equal another, and those that differ from another only in case and space."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[" ".join(name.casefold().split())].append(name)
    for group in alike.values():
        different = list(dict.fromkeys(group))
        problems.add("same_category", repr(group[0]), len(group) - len(different))
        problems.add("similar_category", " and ".join(map(repr, different)), len(different) - 1)
