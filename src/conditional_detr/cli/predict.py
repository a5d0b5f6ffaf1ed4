"""``cdetr predict``."""

import glob
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from conditional_detr.cli.log import console, say
from conditional_detr.cli.options import Boxes, Compile, Dilation, Optimize, Source, optimized
from conditional_detr.errors import InputError, SettingsError

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Found


def command(
    source: Source,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Image files, folders, glob patterns or URLs.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for pictures and detections.json (default: predictions).")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Minimum score.")] = 0.5,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images per batch; above 1, images of different sizes are padded.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; write pictures only with --out.")] = False,
    optimize: Optimize = False,
    compile: Compile = False,
    dilation: Dilation = None,
    boxes: Boxes = None,
) -> None:
    """Find objects in images. Files that can't be used are reported and skipped, and the exit code is then 2."""
    from rich.progress import track

    from conditional_detr.inference.detector import Detector

    if out is None and not as_json:
        out = Path("predictions")
    files = find_images(inputs, out)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    detector = Detector.from_pretrained(source, dilation=dilation, boxes=boxes)
    if optimize or compile:
        optimized(detector, compile)
    results: list[dict[str, Any]] = []
    failed = 0
    pictures = _Pictures(out) if out is not None else None
    stream = detector.stream(files, threshold, batch_size=batch_size)
    shown = track(
        stream, "predicting", len(files), console=console(), transient=True, disable=not console().is_terminal
    )
    for image_id, (file, found) in enumerate(zip(files, shown, strict=True), start=1):
        if isinstance(found, InputError):
            failed += 1
            say(f"skipped: {found}", err=True)
            continue
        if pictures is not None:
            pictures.draw(file, found)
        for result, name in zip(found.detections.to_coco(image_id), found.detections.names, strict=True):
            results.append({"file_name": str(file), **result, "category_name": name})
    text = json.dumps(results, indent=1)  # in ASCII, because file names may be invalid text
    if out is not None:
        (out / "detections.json").write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(text)
    else:
        say(f"{len(results)} objects in {len(files) - failed} images; pictures and detections.json are in {out}")
    if failed:
        say(f"{failed} of {len(files)} files could not be used", err=True)
        raise typer.Exit(2)


def find_images(inputs: Iterable[str], out: Path | None = None) -> list[str | Path]:
    """Return the images that files, folders, glob patterns and URLs name, each once.

    Folders are searched at any depth for files with the suffix of an image, outside ``out``, which may hold pictures of an
    earlier call. Files that are named directly may have any suffix. Raises ``SettingsError`` for an input without images, and
    when a picture in ``out`` could overwrite an input.
    """
    from conditional_detr.data.images import SUFFIXES, is_url

    found: dict[str | Path, None] = {}
    pictures = None if out is None else out.resolve()
    for text in inputs:
        path = Path(text)
        if is_url(text):
            found[text] = None
            continue
        if path.is_dir():
            below = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            own = pictures == path.resolve()  # refused below
            matches = sorted(file for file in below if own or pictures not in file.resolve().parents)
            if not matches:
                raise SettingsError(f"folder {path} holds no images; name another folder or files")
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(Path(name) for name in glob.glob(text, recursive=True) if Path(name).is_file())
            if not matches:
                raise SettingsError(f"{text} is no file, folder or pattern with matches; correct the path")
        found.update(dict.fromkeys(matches))
    for file in found:
        if isinstance(file, Path) and file.resolve().parent == pictures:
            raise SettingsError(f"{file} is in {out}, where pictures are written; name another folder with --out")
    return list(found)


class _Pictures:
    """Writer of annotated pictures into a folder, under unique names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: set[str] = set()

    def draw(self, file: str | Path, found: "Found") -> None:
        stem = file.stem if isinstance(file, Path) else Path(urlsplit(file).path).stem or "image"
        name, number = f"{stem}.jpg", 1
        while name.casefold() in self.taken:
            number += 1
            name = f"{stem}-{number}.jpg"
        self.taken.add(name.casefold())
        found.detections.draw(found.image).save(self.folder / name, quality=92)
