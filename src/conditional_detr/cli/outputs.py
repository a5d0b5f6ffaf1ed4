"""Files in the folder of ``cdetr predict``: their names, and whether this command wrote what is there already."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conditional_detr.errors import SettingsError, newer_version

LINES, DATA = "detections.jsonl", "detections.json"
VERSION = 1  # of both files, under "info"
PROGRAM = "cdetr predict"
VIDEO_PROGRAM = "cdetr predict video"
FINISHED = "finished"  # key in the last of the lines, which holds the checksum of the data
_START = re.compile(rb'\{"info": \{"program": "' + PROGRAM.encode() + rb'", "version": (\d{1,9})[,}]')
_SEAL = b"made by cdetr predict, unchanged if this is the checksum of the rest: "  # comment in every picture
_STEM_BYTES = 200  # of the name of a picture; file systems take 255, and a file has a longer name while it is written


def name_in_url(url: str) -> str:
    """Return the file name at the end of a URL, also of one that is malformed and can't be fetched."""
    try:
        return Path(urlsplit(url).path).name or "image"
    except ValueError:
        return "image"


def stem_of(file: str | Path) -> str:
    """Return the name of an image without folder and suffix. file: a text is a URL, or a name."""
    return file.stem if isinstance(file, Path) else Path(name_in_url(file)).stem


def picture_names(files: Iterable[str | Path], suffix: str = ".jpg") -> dict[str | Path, str]:
    """Return a name of a picture for every image, different from each other also where upper and lower case are the same."""
    names: dict[str | Path, str] = {}
    taken: set[str] = set()
    for file in files:
        stem = stem_of(file)
        while len(os.fsencode(stem)) > _STEM_BYTES:
            stem = stem[:-1]
        name, number = f"{stem}{suffix}", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        taken.add(name.casefold())
        names[file] = name
    return names


def refuse_others(out: Path, pictures: Iterable[str]) -> None:
    """Raise ``SettingsError`` when a result would replace a link or a file that this command did not write."""
    if not _is_folder(out):
        return
    there = {name.casefold(): name for name in os.listdir(out)}
    for name, is_ours in ((LINES, _is_our_data), (DATA, _is_our_data), *((name, _is_our_picture) for name in pictures)):
        if name.casefold() not in there:
            continue
        path = out / there[name.casefold()]
        if path.is_symlink() or not path.is_file() or not is_ours(path):
            raise would_replace(path)


def refuse_other_videos(out: Path, videos: Iterable[str]) -> None:
    """Raise ``SettingsError`` when a video, or the file of its lines, would replace a link or a file that no such command wrote."""
    for video in videos if _is_folder(out) else ():
        path, lines = out / video, (out / video).with_suffix(".jsonl")
        ours = lines.is_file() and read_info(lines).get("program") == VIDEO_PROGRAM
        for each in (path, lines):
            if os.path.lexists(each) and (not ours or each.is_symlink() or not each.is_file()):
                raise would_replace(each)


def _is_folder(out: Path) -> bool:
    """Tell whether a folder is there. Raises ``SettingsError`` when something else is."""
    if not out.is_dir() and os.path.lexists(out):
        raise SettingsError(f"{out} is not a folder; name another with --out")
    return out.is_dir()


def would_replace(path: Path) -> SettingsError:
    return SettingsError(
        f"{path} was not written by this command, or was changed since, and would be replaced; "
        f"move it away, or name another folder with --out"
    )


@contextlib.contextmanager
def locked(out: Path) -> Generator[None]:
    """Lock a folder, which leaves no file behind. Raises ``SettingsError`` when another command is writing into it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise SettingsError(
            f"another command is writing into {out}; wait for its end, or name another folder with --out"
        ) from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(folder)


def _is_our_data(path: Path) -> bool:
    with path.open("rb") as file:
        found = _START.match(file.read(100))
        if found is None:
            return False
        if int(found[1]) > VERSION:
            raise SettingsError(newer_version(path, "detections", int(found[1]), VERSION))
        lines = path.with_name(LINES)
        written = last_line(lines).get(FINISHED) if path.name == DATA and lines.is_file() else None
        digest = hashlib.sha256()
        file.seek(0)
        while written is not None and (part := file.read(2**20)):
            digest.update(part)
        return written in (None, digest.hexdigest())


def sealed(jpeg: bytes) -> bytes:
    """Return a JPEG with a comment that marks it as a picture of this command, for as long as nobody changes it."""
    text = _SEAL + hashlib.sha256(jpeg).hexdigest().encode()
    place = _place_of_seal(jpeg)
    return jpeg[:place] + b"\xff\xfe" + (2 + len(text)).to_bytes(2, "big") + text + jpeg[place:]


def _place_of_seal(jpeg: bytes) -> int:
    return 4 + int.from_bytes(jpeg[4:6], "big")  # behind the first segment, which has to be that of JFIF


def _is_our_picture(path: Path) -> bool:
    with path.open("rb") as file:
        jpeg = file.read(2**17)
        if _SEAL not in jpeg:
            return False
        jpeg += file.read()
    place = _place_of_seal(jpeg)
    return jpeg == sealed(jpeg[:place] + jpeg[place + 4 + len(_SEAL) + 64 :])


def information(**settings: object) -> dict[str, Any]:
    """Return what both files say on how they were made. settings: what decides the detections in an image."""
    from conditional_detr import __version__

    return {"program": PROGRAM, "version": VERSION, "release": __version__, **settings}


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what was different about earlier results, such as "threshold 0.3". Empty if they would be the same now."""
    changed = [key for key, value in now.items() if earlier.get(key) != value]
    names = (f"{key.replace('_', ' ')} {earlier.get(key)}" if key != "model" else "another model" for key in changed)
    return " and ".join(names)


def read_info(lines: Path) -> dict[str, Any]:
    """Return what the first of the lines says on how they were made. Empty if it can't be read."""
    with lines.open("rb") as file, contextlib.suppress(ValueError, LookupError, TypeError):
        return dict(json.loads(file.readline(2**20))["info"])
    return {}


def last_line(lines: Path) -> dict[str, Any]:
    """Return the last of the lines if it is not of an image. Empty if it is, or can't be read."""
    with lines.open("rb") as file, contextlib.suppress(ValueError, LookupError, TypeError):
        file.seek(max(file.seek(0, os.SEEK_END) - 4096, 0))
        found = dict(json.loads(file.read().splitlines()[-1]))
        return found if FINISHED in found or "info" in found else {}
    return {}


def unused(path: Path) -> Path:
    """Return the path with the lowest number that makes it new: ``detections-1.jsonl``."""
    number = 1
    while os.path.lexists(path.with_stem(f"{path.stem}-{number}")):
        number += 1
    return path.with_stem(f"{path.stem}-{number}")
