"""Find image files by the names that annotations give them, also when a tool on another system changed the names."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path, PurePosixPath

from conditional_detr.data.images import SUFFIXES
from conditional_detr.data.problems import Problems
from conditional_detr.errors import DataError

# Image files that are not read.
OTHER_SUFFIXES = frozenset(
    {
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".j2k",
        ".dng",
        ".cr2",
        ".nef",
        ".arw",
        ".svg",
        ".jfif",
        ".pgm",
        ".ppm",
        ".tga",
    }
)


class Folder:
    """The files of a folder at any depth, looked up by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed: dict[str, set[str]] = {}  # subfolder -> names in it
        self._loose: dict[str, list[str]] | None = None  # simplified name or part of it -> files

    def has(self, name: str) -> bool:
        """Tell whether a file of exactly this name exists. Every subfolder is listed only once."""
        parent, base = os.path.split(name)
        if parent not in self._listed:
            try:
                self._listed[parent] = set(os.listdir(self.path / parent))
            except (OSError, ValueError):
                self._listed[parent] = set()
        return base in self._listed[parent]

    def find(self, name: str) -> str | None:
        """Return the file of this name, relative to the folder, or None.

        A name that does not exist is looked up with another separator, case and form of Unicode, then in other folders, then
        with another suffix. It must fit exactly one file then.
        """
        if self.has(name):
            return name
        if self._loose is None:
            self._loose = {}
            for file in images_below(self.path):
                for key in _keys(file):
                    self._loose.setdefault(key, []).append(file)
        for key in _keys(name):
            if len(found := self._loose.get(key, ())) == 1:
                return found[0]
        return None


def images_below(folder: Path) -> list[str]:
    """Return the image files in a folder at any depth, by suffix, relative to it and sorted. Hidden ones are left out."""
    return files_below(folder, SUFFIXES)


def files_below(folder: Path, suffixes: Set[str]) -> list[str]:
    """Return the files with these suffixes (in lower case) in a folder at any depth, as ``images_below`` does."""
    return sorted(_walk(folder, suffixes))


def any_below(folder: Path, suffixes: Set[str]) -> bool:
    """Tell whether ``files_below`` finds anything. It stops at the first file."""
    return next(_walk(folder, suffixes), None) is not None


def files_in(folder: Path, suffixes: Set[str]) -> list[str]:
    """Return the names of files with these suffixes (in lower case) in a folder itself, sorted. Hidden ones are left out."""
    _, _, files = next(os.walk(folder), ("", [], []))
    return sorted(_with_suffix(files, suffixes))


def _walk(folder: Path, suffixes: Set[str]) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        place = Path(parent).relative_to(folder).as_posix()
        prefix = "" if place == "." else f"{place}/"
        yield from (f"{prefix}{file}" for file in _with_suffix(files, suffixes))


def _with_suffix(files: Iterable[str], suffixes: Set[str]) -> Iterable[str]:
    return (file for file in files if not file.startswith(".") and os.path.splitext(file)[1].lower() in suffixes)


# Split -> names of its files and folders in lower case, in groups of equal rank, the best first.
_SPLIT_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (("train", "training"),),
    "val": (("val", "valid", "validation", "dev"), ("test", "testing")),
    "test": (("test", "testing"),),
}


def is_test(name: str) -> bool:
    """Tell whether a file or folder is named as a test split, which stands in for a missing validation split."""
    return _plain(name) in _SPLIT_NAMES["test"][0]


def of_split(names: Iterable[str], split: str) -> list[str]:
    """Return the names of files or folders that mean a split: train, Train, train2017 or train.txt. Several if none is better."""
    names = sorted(names)
    ranks = ([name for name in names if _plain(name) in group] for group in _SPLIT_NAMES[split])
    return next((rank for rank in ranks if rank), [])


def _plain(name: str) -> str:
    return name.partition(".")[0].rstrip("0123456789").lower()


def split_folders(parent: Path, split: str, fits: Callable[[Path], bool]) -> list[Path]:
    """Return the subfolders that are named as a split and fit. Several if none is better."""
    _, folders, _ = next(os.walk(parent), ("", [], []))
    return [parent / name for name in of_split((name for name in folders if fits(parent / name)), split)]


def child(parent: Path, *names: str) -> Path | None:
    """Return the first of these files or folders that exists, in any case of letters."""
    try:
        present = sorted(os.listdir(parent), reverse=True)  # of names that differ in case, capitals come last and win
    except OSError:
        return None
    by_name = {name.lower(): name for name in present}
    return next((parent / by_name[name.lower()] for name in names if name.lower() in by_name), None)


def _keys(name: str) -> Iterable[str]:
    """Return simplified forms of a name: the whole one, the one without folders, and the one without suffix."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")).casefold())
    stem = path.stem if path.suffix in SUFFIXES else path.name
    return f"path {path}", f"name {path.name}", f"stem {stem}"


def locate_images(
    names: Sequence[str],
    tiers: Sequence[Sequence[Path]],
    *,
    source: Path,
    setting: str,
    problems: Problems,
    skip: bool = False,
) -> tuple[Path, list[str | None]]:
    """Return the folder that holds the images, and the names of the files in it, None for missing ones.

    tiers: folders that may hold the images, in groups of equal rank, the best first. setting: name of the setting for the
    folder, for messages. Names that differ from those of the files are counted in ``problems``, and with ``skip`` missing
    images too. Raises ``DataError`` when images are missing otherwise, when all are, and when several folders of equal rank
    hold them all.
    """
    best: tuple[int, Folder, list[str | None]] | None = None
    tried: list[Path] = []
    for tier in tiers:
        complete: dict[Path, tuple[Folder, list[str | None]]] = {}
        for path in dict.fromkeys(tier):
            if path in tried or not path.is_dir():
                tried += [path] if path not in tried else []
                continue
            tried.append(path)
            folder = Folder(path)
            found: list[str | None] = [name if folder.has(name) else None for name in names]
            if not any(found) or None in found:
                found = [name or folder.find(names[i]) for i, name in enumerate(found)]
            count = len(names) - found.count(None)
            if count == len(names):
                complete.setdefault(path.resolve(), (folder, found))
            if best is None or count > best[0]:
                best = count, folder, found
        if len(complete) > 1:
            places = " and ".join(str(folder.path) for folder, _ in complete.values())
            raise DataError(f"{places} both hold the images of {source}; set {setting} to the right folder")
        if complete:
            folder, found = next(iter(complete.values()))
            best = len(names), folder, found
            break
    if best is None or best[0] == 0:
        looked = ", ".join(map(str, tried)) or "any folder"
        raise DataError(f"{names[0]!s:.200}, the first image in {source}, is not in {looked}; set {setting}")
    _, folder, found = best
    missing = [name for name, file in zip(names, found, strict=True) if file is None]
    if missing and not skip:
        raise DataError(
            f"{len(missing)} of {len(names)} images in {source} are not in {folder.path}, the first is {missing[0]!s:.200}; "
            f"add the files or remove their entries, or leave them out with data.on_error=skip"
        )
    problems.add_images("missing", [f"{folder.path / name} does not exist" for name in missing])
    changed = [(name, file) for name, file in zip(names, found, strict=True) if file is not None and name != file]
    if changed:
        name, file = changed[0]
        problems.add("file_name", f"{name!r} is {file!r}", len(changed))
    twice = [(file, count) for file, count in Counter(found).items() if count > 1 and file is not None]
    if twice:
        problems.add("same_file", twice[0][0], sum(count - 1 for _, count in twice))
    return folder.path, found
