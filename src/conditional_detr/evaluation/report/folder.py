"""The folder of a report, in which only files that an earlier report wrote are replaced."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conditional_detr.errors import InputError, SettingsError
from conditional_detr.evaluation.report.analysis import Analysis
from conditional_detr.evaluation.report.content import content
from conditional_detr.evaluation.report.findings import WORST
from conditional_detr.evaluation.report.hints import Hint, hints
from conditional_detr.evaluation.report.page import page
from conditional_detr.evaluation.report.pictures import draw_worst
from conditional_detr.evaluation.report.plots import plot_confusion, plot_curves, plot_errors
from conditional_detr.files import checksum, read_json, write_text
from conditional_detr.record import ModelRecord

PAGE, DATA = "index.html", "report.json"
TOLD = 2  # hints that a message repeats from a report
VERSION = 1  # of ``report.json``, under "info"
_PICTURES = [f"worst-{number:02d}.jpg" for number in range(1, WORST + 1)]
_NAMES = [PAGE, DATA, "curves.png", "confusion.png", "errors.png", *_PICTURES]
_PARTIAL = ".report.partial"
_SEAL = re.compile(r'(,\s*"sha256": "([0-9a-f]{64})"\s*\}\n)\Z')  # end of the data: checksum of all before it


def refuse_others(folder: Path) -> None:
    """Raise ``SettingsError`` when a report would replace a link, or a file that no report wrote or that was changed since."""
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise SettingsError(f"{folder} is not a folder; give another for the report")
        return
    if (folder / _PARTIAL).is_symlink():
        raise SettingsError(f"{folder / _PARTIAL} is a link, which a report would replace; remove it")
    ours = _written(folder / _PARTIAL) + _written(folder)  # the former is there after a kill between the files
    for name in os.listdir(folder):
        path = folder / name
        if name.casefold() in _NAMES and (
            path.is_symlink() or not path.is_file() or (name, checksum(path)) not in ours
        ):
            raise SettingsError(
                f"{path} was not written by a report, or was changed since, and would be replaced; move it away, or give "
                f"another folder for the report"
            )


def _written(folder: Path) -> list[tuple[str, str]]:
    """Return names and checksums of the files that a report wrote into a folder. Empty if its data is not there or changed."""
    info = read_info(folder)
    files = info.get("files")
    listed = [(str(name), str(value)) for name, value in files.items()] if isinstance(files, dict) else []
    return [*listed, (DATA, checksum(folder / DATA))] if info else []


def read_info(folder: Path) -> dict[str, Any]:
    """Return what the data of a report says about itself. Empty without intact data."""
    path = folder / DATA
    if folder.is_symlink() or path.is_symlink() or not path.is_file():
        return {}
    try:
        values = read_json(path, SettingsError, "remove it")
        text = path.read_text(encoding="utf-8")
    except (InputError, OSError, ValueError):
        return {}
    seal, info = _SEAL.search(text), values.get("info")
    if seal is None or not isinstance(info, dict) or _digest(text[: seal.start()]) != seal[2]:
        return {}
    return dict(info)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_report(folder: Path, analysis: Analysis, record: ModelRecord, about: Mapping[str, Any]) -> list[Hint]:
    """Write the page, its pictures and the data of a report, and return its hints, the most important first.

    The files replace those of an earlier report when all are complete. record: of the model that was evaluated. about: further facts, such as its path, for "info". Raises ``SettingsError`` as
    ``refuse_others`` does, and ``OSError`` when the folder can't be written.
    """
    refuse_others(folder)
    earlier = {name for name, _ in _written(folder)}
    partial = folder / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        advice = _write(partial, analysis, record, dict(about))
        written = sorted((path.name for path in partial.iterdir()), key=lambda name: name == DATA)  # the data last
        for name in written:
            os.replace(partial / name, folder / name)
        for name in earlier.intersection(_NAMES).difference(written):
            (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return advice


def _write(folder: Path, analysis: Analysis, record: ModelRecord, about: dict[str, Any]) -> list[Hint]:
    advice = hints(analysis, record)
    pictures: dict[int, str] = {}
    if analysis.objects:
        plot_curves(analysis, folder / "curves.png")
        plot_errors(analysis, folder / "errors.png")
        plot_confusion(analysis, folder / "confusion.png")
        for i, (each, name) in enumerate(zip(analysis.worst, _PICTURES, strict=False)):
            if draw_worst(analysis.matches.data, each, folder / name):
                pictures[i] = name
    write_text(folder / PAGE, page(analysis, advice, about, pictures))
    files = {path.name: checksum(path) for path in sorted(folder.iterdir())}
    info = {
        "program": "cdetr evaluate",
        "version": VERSION,
        "release": version("conditional-detr"),
        **about,
        "files": files,
    }
    values = {"info": info, **content(analysis, advice)}
    text = json.dumps(values, indent=1, allow_nan=False).removesuffix("\n}")
    write_text(folder / DATA, f'{text},\n "sha256": "{_digest(text)}"\n}}\n')
    return advice
