"""``cdetr predict``."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conditional_detr.cli.formats import BASE
from conditional_detr.cli.inputs import find_images
from conditional_detr.cli.log import console, note, say
from conditional_detr.cli.options import (
    Boxes,
    Compile,
    Dilation,
    Names,
    Optimize,
    Runtime,
    Source,
    open_detector,
    tell_runtime,
    threshold_of,
)
from conditional_detr.cli.outputs import DATA, LINES
from conditional_detr.cli.predictions import Predictions
from conditional_detr.cli.signals import signals_interrupt
from conditional_detr.errors import InputError, SettingsError
from conditional_detr.inference.formats import FORMATS
from conditional_detr.text import counted

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector, Found, Threshold
    from conditional_detr.inference.tiles import Tiling


def command(
    source: Source,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images (files, folders, glob patterns, URLs), or videos (files, streams, camera:0).",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for pictures and detections.json, or videos (default: predictions)."),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="SCORE|auto",
            help="Minimum score, in 0..1; auto: the best one of each category, from training or evaluate --report.",
        ),
    ] = "0.5",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images per batch; above 1, images of different sizes are padded.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; write pictures only with --out.")] = False,
    tiles: Annotated[
        int | None,
        typer.Option(metavar="SIZE", help="Search tiles of SIZE x SIZE pixels too, for small objects in large images."),
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(help="Part that neighboring tiles share, in 0..0.9.", show_default="0.2")
    ] = None,
    every: Annotated[int, typer.Option(metavar="N", help="Compute only each Nth frame of a video.")] = 1,
    track: Annotated[bool, typer.Option("--track", help="Number the objects of a video and follow them.")] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar=f"[{'|'.join((BASE, *FORMATS))}]",
            help="Write this format too, after the COCO data; may be repeated.",
            autocompletion=lambda: [BASE, *FORMATS],
        ),
    ] = None,
    optimize: Optimize = False,
    compile: Compile = False,
    runtime: Runtime = "auto",
    dilation: Dilation = None,
    boxes: Boxes = None,
    names: Names = None,
) -> None:
    """Find objects in images or videos. Files that can't be used are reported and skipped, and the exit code is then 2.

    After Ctrl-C or on a full disk, the same command goes on with the images that are not done yet. A video that ended early can
    be played as far as it is done.
    """
    from conditional_detr.cli import predict_video

    if out is None and not as_json:
        out = Path("predictions")
    asked, tiling = threshold_of(threshold), _tiling(tiles, overlap)
    if every < 1:
        raise SettingsError(f"--every is {every}; give a whole number from 1")
    opening = partial(
        open_detector,
        source,
        dilation=dilation,
        boxes=boxes,
        names=names,
        runtime=runtime,
        optimize=optimize,
        compile=compile,
    )
    if predict_video.are_videos(inputs):
        if formats:
            raise SettingsError("--format is for images; leave it out for videos, whose lines are JSON")
        settings = predict_video.VideoSettings(
            threshold=asked, batch_size=batch_size, tiling=tiling, every=every, track=track, as_json=as_json
        )
        predict_video.predict_videos(opening, inputs, out, settings)
        return
    if every > 1 or track:
        raise SettingsError("--every and --track are for videos; leave them out for images")
    files = find_images(inputs, out)
    with Predictions(files, out, formats or ()) as results:
        reason = ""
        try:
            with signals_interrupt():
                detector = opening()
                tell_runtime(detector)
                todo, remark = results.begin(detector, asked, batch_size, tiling)
                for each in filter(None, (remark, results.renamed)):
                    note(each)
                try:
                    _detect(_stream(detector, todo, asked, batch_size, tiling), todo, results)
                    results.finish()
                except OSError as error:
                    reason = (
                        f"{error.filename or out or 'a temporary file'} can't be written ({error.strerror or error})"
                    )
                except Exception:  # its own message follows
                    _show(results, as_json)
                    note(_kept(results))
                    raise
        except KeyboardInterrupt:
            reason = "interrupted"
        _show(results, as_json)
        if reason:
            note(f"error: {reason}: {_kept(results)}")
            raise typer.Exit(1)
        _summarize(results, asked, as_json)


def _tiling(tiles: int | None, overlap: float | None) -> "Tiling | None":
    """Read the options. Raises ``SettingsError``."""
    if tiles is None:
        if overlap is not None:
            raise SettingsError("--overlap is for tiles; give --tiles too")
        return None
    from conditional_detr.inference.tiles import Tiling

    return Tiling(tiles) if overlap is None else Tiling(tiles, overlap)


def _stream(
    detector: "Detector",
    files: Sequence[str | Path],
    threshold: "Threshold",
    batch_size: int,
    tiling: "Tiling | None",
) -> "Iterator[Found | InputError]":
    if tiling is None:
        return detector.stream(files, threshold, batch_size=batch_size)
    from conditional_detr.inference.tiles import stream_tiles

    return stream_tiles(detector, files, tiling, threshold, batch_size=batch_size)


def _detect(stream: "Iterator[Found | InputError]", todo: Sequence[str | Path], results: Predictions) -> None:
    from rich.progress import Progress

    with Progress(console=console(), transient=True, disable=not console().is_terminal) as progress:
        shown = progress.track(stream, len(todo), description="predicting")
        for file, found in zip(todo, shown, strict=True):
            try:
                if isinstance(found, InputError):
                    raise found
                results.add(file, found)
            except InputError as error:
                results.skip(file, error)
                note(f"skipped: {error}")


def _show(results: Predictions, as_json: bool) -> None:
    for part in results.coco() if as_json else ():
        typer.echo(part, nl=False)


def _kept(results: Predictions) -> str:
    """Say what remains of a command that ended early, and how to go on."""
    done = f"{len(results.done)} of {len(results.files)} images are done"
    if results.out is None:
        return f"{done}, and the JSON holds them"
    if results.done and not (results.out / LINES).exists():
        return f"{done}, but {results.out / LINES} was removed; give the same command again"
    if not results.done:
        return f"{done}; give the same command again"
    stale = f"; {DATA} there is of an earlier command" if (results.out / DATA).exists() else ""
    return f"{done} and kept in {results.out / LINES}{stale}; the same command goes on from there"


def _summarize(results: Predictions, threshold: "Threshold", as_json: bool) -> None:
    done, files = results.done, len(results.files)
    if not as_json:
        objects = sum(line.objects for line in done)
        say(f"{counted(objects, 'object')} in {counted(len(done), 'image')}; {results.written} are in {results.out}")
    if empty := [line for line in done if not line.objects]:
        best = max(empty, key=lambda line: line.best_score)
        score = math.floor(best.best_score * 1000) / 1000  # not rounded up to the threshold
        least = "the thresholds of their categories" if threshold == "auto" else f"{threshold:g}"
        remedy = "give a --threshold below it to see more" if threshold == "auto" else "lower --threshold to see more"
        which = "no image has" if len(empty) == len(done) else f"{len(empty)} of {len(done)} images have no"
        say(
            f"{which} objects with a score from {least}; the best score in them is {score:g} "
            f"({best.image.file_name}): {remedy}",
            err=True,
        )
    if failed := len(results.files) - len(done):
        say(f"{failed} of {files} files could not be used", err=True)
        raise typer.Exit(2)
