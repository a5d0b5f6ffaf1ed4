"""``cdetr predict``."""

import contextlib
import math
import signal
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
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
    optimized,
    tell_runtime,
)
from conditional_detr.cli.outputs import DATA, LINES
from conditional_detr.cli.predictions import Predictions
from conditional_detr.errors import InputError, SettingsError
from conditional_detr.inference.formats import FORMATS

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector, Threshold


def command(
    source: Source,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Image files, folders, glob patterns or URLs.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for pictures and detections.json (default: predictions).")
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
    """Find objects in images. Files that can't be used are reported and skipped, and the exit code is then 2.

    After Ctrl-C or on a full disk, the same command goes on with the images that are not done yet.
    """
    from conditional_detr.inference.detector import Detector

    if out is None and not as_json:
        out = Path("predictions")
    asked = _threshold(threshold)
    files = find_images(inputs, out)
    with Predictions(files, out, formats or ()) as results:
        reason = ""
        try:
            with _signals_interrupt():
                detector = Detector.from_pretrained(
                    source, dilation=dilation, boxes=boxes, names=names, runtime=runtime
                )
                if optimize or compile:
                    optimized(detector, compile)
                tell_runtime(detector)
                todo, remark = results.begin(detector, asked, batch_size)
                if remark:
                    note(remark)
                try:
                    _detect(detector, todo, results, asked, batch_size)
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


def _threshold(text: str) -> "Threshold":
    """Read the option. Raises ``SettingsError``."""
    with contextlib.suppress(ValueError):
        if text == "auto":
            return "auto"
        if 0 <= (value := float(text)) <= 1:
            return value
    raise SettingsError(f"--threshold is {text!r}; give a number in 0..1, or auto")


def _detect(
    detector: "Detector", todo: Sequence[str | Path], results: Predictions, threshold: "Threshold", batch_size: int
) -> None:
    from rich.progress import Progress

    stream = detector.stream(todo, threshold, batch_size=batch_size)
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


@contextlib.contextmanager
def _signals_interrupt() -> Generator[None]:
    """Let the signals that stop a run interrupt the block as Ctrl-C does. Under nohup, which ignores SIGHUP, it stays ignored."""
    from conditional_detr.data.loading import STOP_SIGNALS

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    always = (signal.SIGINT, signal.SIGTERM)  # a shell ignores SIGINT for what it starts in the background
    numbers = [each for each in STOP_SIGNALS if each in always or signal.getsignal(each) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may handle signals
    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
        say(f"{objects} objects in {len(done)} images; {results.written} are in {results.out}")
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
