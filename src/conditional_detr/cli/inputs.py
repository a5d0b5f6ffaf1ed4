"""Find the images and videos that the arguments of ``cdetr predict`` name."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from conditional_detr.errors import SettingsError


def find_images(inputs: Iterable[str], out: Path | None = None) -> list[str | Path]:
    """Return the images that files, folders, glob patterns and URLs name, each once.

    Folders are searched at any depth for files with the suffix of an image, outside ``out``, which may hold pictures of an
    earlier call. Files that are named directly may have any suffix. What can't be read is returned too, for the message of
    ``read_image``: pipes and broken links in the place of images, folders without permission, and links to folders, which may
    form circles. Raises ``SettingsError`` for an input without images, and when a picture in ``out`` could overwrite an input.
    """
    from conditional_detr.data.images import is_url

    found: dict[str | Path, None] = {}
    pictures = None if out is None else os.path.realpath(out)
    for text in inputs:
        found.update(dict.fromkeys([text] if is_url(text) else _named(text, pictures)))
    for file in found:
        if isinstance(file, Path) and os.path.dirname(os.path.realpath(file)) == pictures:
            raise SettingsError(f"{file} is in {out}, where pictures are written; name another folder with --out")
    return list(found)


def find_videos(inputs: Sequence[str], out: Path | None = None) -> list[str | Path]:
    """Return the videos that files, glob patterns, URLs and cameras name, each once. URLs and cameras stay text.

    Raises ``SettingsError`` for an image among them, for a pattern without matches, and when a result in ``out`` could overwrite
    an input.
    """
    from conditional_detr.video import is_file, is_video

    found: dict[str | Path, None] = {}
    for text in inputs:
        if not is_video(text):
            other = next(each for each in inputs if is_video(each))
            raise SettingsError(
                f"{other} is a video and {text} is none; give videos and images to commands of their own"
            )
        if not is_file(text):
            found[text] = None
            continue
        files = [text] if _exists(text) or not glob.has_magic(text) else sorted(glob.glob(text, recursive=True))
        if not files:
            raise SettingsError(f"{text} is a pattern without matches; correct the path")
        found.update(dict.fromkeys(map(Path, files)))
    for file in found:
        if out and isinstance(file, Path) and os.path.dirname(os.path.realpath(file)) == os.path.realpath(out):
            raise SettingsError(f"{file} is in {out}, where videos are written; name another folder with --out")
    return list(found)


def _named(text: str, pictures: str | None) -> list[Path]:
    """Return the images that a path or a glob pattern names, sorted."""
    if _exists(text) and not os.path.isdir(text):
        return [Path(text)]
    if _exists(text):
        found = sorted(_images_in(Path(text), pictures))
        if not found:
            raise SettingsError(f"folder {text} holds no images; name another folder or files")
        return found
    found = sorted(_matching(text, pictures))
    if not found:
        raise SettingsError(f"{text} is no file, folder or pattern with matches; correct the path")
    return found


def _exists(text: str) -> bool:
    """Tell whether a path exists, as a link too. A path without permission counts, for the message that says so."""
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        pass
    return True


def _images_in(folder: Path, pictures: str | None) -> Iterator[Path]:
    from conditional_detr.data.images import SUFFIXES

    for path in _walk(folder, pictures):
        if path.suffix.lower() in SUFFIXES or os.path.isdir(path):
            yield path


def _matching(pattern: str, pictures: str | None) -> Iterator[Path]:
    """Yield what a glob pattern matches, and the images in folders that it matches. ``**`` is for folders at any depth."""
    parts = Path(pattern).parts
    if "**" not in parts:
        for path in map(Path, glob.glob(pattern)):
            yield from _images_in(path, pictures) if os.path.isdir(path) and not path.is_symlink() else [path]
        return
    first = parts.index("**")
    for root in map(Path, glob.glob(os.path.join(*parts[:first])) if first else ["."]):
        for path in _walk(root, pictures):
            if os.path.isdir(path) or _fits(path.relative_to(root).parts, parts[first:]):
                yield path


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Tell whether the parts of a path fit the parts of a pattern. As in a shell, hidden names need a pattern with a dot."""
    if not names or not patterns:
        return not names and all(pattern == "**" for pattern in patterns)
    hidden = names[0].startswith(".")
    if patterns[0] == "**":
        return _fits(names, patterns[1:]) or (not hidden and _fits(names[1:], patterns))
    fits = fnmatchcase(names[0], patterns[0]) and (not hidden or patterns[0].startswith("."))
    return fits and _fits(names[1:], patterns[1:])


def _walk(folder: Path, pictures: str | None) -> Iterator[Path]:
    """Yield all files in a folder at any depth, and the folders that can't be searched: links, and those without permission.

    pictures: folder that is left out, as are links into it, unless ``folder`` is that folder.
    """
    if os.path.realpath(folder) == pictures:
        pictures = None
    closed: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        if os.path.realpath(place) == pictures:
            folders.clear()
            continue
        links = (name for name in folders if os.path.islink(os.path.join(place, name)))
        for path in (Path(place, name) for name in (*files, *links)):
            if pictures is not None and path.is_symlink():
                if os.path.join(os.path.realpath(path), "").startswith(os.path.join(pictures, "")):
                    continue
            yield path
    yield from closed
