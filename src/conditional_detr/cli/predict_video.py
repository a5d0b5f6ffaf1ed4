"""``cdetr predict`` for videos, cameras and streams: a video with boxes, and a line of JSON for every frame that is computed."""

import contextlib
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from conditional_detr.cli import outputs
from conditional_detr.cli.inputs import find_videos
from conditional_detr.cli.log import console, note, say
from conditional_detr.cli.options import tell_runtime
from conditional_detr.cli.signals import signals_interrupt
from conditional_detr.errors import ImageError, InputError
from conditional_detr.text import counted

if TYPE_CHECKING:
    from conditional_detr.cli.video_results import VideoResults
    from conditional_detr.inference.detector import Detector, Found, Threshold
    from conditional_detr.inference.tiles import Tiling
    from conditional_detr.structures import Detections
    from conditional_detr.video import Frame, Video


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """What the options say. every: distance of the frames that are computed. as_json: whether lines are printed."""

    threshold: "Threshold"
    batch_size: int = 1
    tiling: "Tiling | None" = None
    every: int = 1
    track: bool = False
    as_json: bool = False


def are_videos(inputs: Sequence[str]) -> bool:
    """Tell whether any of the arguments names a video."""
    from conditional_detr.video import is_video

    return any(is_video(each) for each in inputs)


def predict_videos(
    open_detector: "Callable[[], Detector]", inputs: Sequence[str], out: Path | None, settings: VideoSettings
) -> None:
    """Predict one video after the other. Of several, those that can't be used are reported and skipped."""
    videos = find_videos(inputs, out)
    labels = {each: _label(each) for each in videos}
    names = outputs.picture_names(labels.values(), ".mp4")
    if out is not None:
        outputs.refuse_other_videos(out, names.values())
        out.mkdir(parents=True, exist_ok=True)
    complete = True
    detector: Detector | None = None
    with outputs.locked(out) if out else contextlib.nullcontext():
        try:
            with signals_interrupt():
                for source in videos:
                    path = None if out is None else out / names[labels[source]]
                    try:
                        with _opened(source) as video:
                            if detector is None:
                                detector = open_detector()
                                tell_runtime(detector)
                            complete &= _predict(detector, video, path, settings)
                    except ImageError as error:
                        if len(videos) == 1:
                            raise
                        note(f"skipped: {error}")
                        complete = False
        except KeyboardInterrupt:
            note("error: interrupted: no frame is done")
            raise typer.Exit(1) from None
    if not complete:
        raise typer.Exit(2)


def _opened(source: str | Path) -> "Video":
    from conditional_detr.video import Video

    return Video(source)


def _label(source: str | Path) -> str | Path:
    """Return what names the results of a video."""
    return Path(source.replace(":", "-")) if isinstance(source, str) and source.startswith("camera:") else source


def _predict(detector: "Detector", video: "Video", path: Path | None, settings: VideoSettings) -> bool:
    """Predict a video, and finish its files however it ends. Return whether all of the video could be used."""
    from conditional_detr.cli.video_results import VideoResults

    reason, failure = "", None
    with VideoResults(path, video, _information(detector, video, settings), settings) as results:
        try:
            _run(detector, video, results, settings)
        except KeyboardInterrupt:
            reason = "interrupted"
        except OSError as error:
            reason, failure = _unwritten(error, path)
        except Exception as error:  # its own message follows
            failure = error
        try:
            results.finish()
        except OSError as error:
            reason, failure = (reason, failure) if reason or failure else _unwritten(error, path)
    kept = f"{results.frames} frames of {video.source} are done"
    if path is not None and results.frames:
        kept += f" and kept in {path} and {path.with_suffix('.jsonl').name}"
    if failure is not None:
        if results.frames:
            note(kept)
        raise failure
    whole = _tell_damage(video)
    if reason:
        note(f"error: {reason}: {kept}")
        raise typer.Exit(1)
    if not settings.as_json:
        where = "" if path is None else f"; {path.name} and {path.with_suffix('.jsonl').name} are in {path.parent}"
        say(f"{results.summary()}{where}")
    return whole


def _unwritten(error: OSError, path: Path | None) -> tuple[str, OSError | None]:
    """Return the reason why a command ended, or the error itself where it is not about the files."""
    if path is None or isinstance(error, BrokenPipeError):
        return "", error
    return f"{path.parent} can't be written ({error.strerror or error})", None


def _tell_damage(video: "Video") -> bool:
    """Say what could not be decoded. Return whether everything could."""
    if video.broken:
        note(
            f"{video.broken} frames of {video.source} are damaged; they are left out, or shown as far as they can be decoded"
        )
    if video.jumps:
        times = counted(video.jumps, "time")
        note(
            f"the clock of {video.source} jumps {times}, as in files that were joined; the frame after it follows at once"
        )
    if video.ending:
        note(f"{video.ending}; what can be decoded is done")
    return not (video.broken or video.ending)


def _information(detector: "Detector", video: "Video", settings: VideoSettings) -> dict[str, object]:
    from conditional_detr.inference.fingerprint import fingerprint

    tiling = settings.tiling
    return outputs.information(
        program=outputs.VIDEO_PROGRAM,
        file_name=re.sub("//[^/@]*@", "//", str(video.source)),  # without the password of a camera
        width=video.size[0],
        height=video.size[1],
        fps=video.fps,
        threshold=settings.threshold,
        batch_size=settings.batch_size,
        every=settings.every,
        track=settings.track,
        tiles=tiling and tiling.side,
        overlap=tiling and tiling.overlap,
        runtime=detector.runtime,
        model=fingerprint(detector),
    )


def _run(detector: "Detector", video: "Video", results: "VideoResults", settings: VideoSettings) -> None:
    """Decode, detect and write, each in a thread of its own.

    This thread waits for them. So a signal interrupts no write, and the files stay consistent.
    """
    from conditional_detr.video import read_ahead

    results.start(detector)
    found = read_ahead(_detected(detector, video.frames(), settings, results.least), 2)
    written = read_ahead(_written(found, results), 1)
    with contextlib.closing(found), contextlib.closing(written), _progress(video.count) as show:
        for frames in written:
            show(frames)


def _written(found: "Iterable[tuple[Frame, Detections | None]]", results: "VideoResults") -> Iterator[int]:
    """Write results. Yield the number of frames so far."""
    for frame, detections in found:
        results.add(frame, detections)
        yield results.frames


def _detected(
    detector: "Detector", frames: "Iterable[Frame]", settings: VideoSettings, threshold: float
) -> "Iterator[tuple[Frame, Detections | None]]":
    """Yield all frames, with the detections in those that are computed.

    Frames between wait until a batch is full, so memory grows with its size.
    """
    waiting: list[Frame] = []
    chosen = 0
    for frame in frames:
        waiting.append(frame)
        chosen += frame.number % settings.every == 0
        if chosen in (0, settings.batch_size):
            yield from _of_batch(detector, waiting, settings, threshold)
            waiting, chosen = [], 0
    yield from _of_batch(detector, waiting, settings, threshold)


def _of_batch(
    detector: "Detector", frames: "list[Frame]", settings: VideoSettings, threshold: float
) -> "Iterator[tuple[Frame, Detections | None]]":
    from conditional_detr.inference.tiles import stream_tiles

    images = [frame.image for frame in frames if frame.number % settings.every == 0]
    size, tiling = settings.batch_size, settings.tiling
    stream: Iterator[Found | InputError]
    if tiling is None:
        stream = detector.stream(images, threshold, batch_size=size)
    else:
        stream = stream_tiles(detector, images, tiling, threshold, batch_size=size)
    for frame in frames:
        if frame.number % settings.every:
            yield frame, None
            continue
        found = next(stream)
        if isinstance(found, InputError):
            raise found
        if not (found.detections.boxes.isfinite().all() and found.best_score == found.best_score):
            raise ImageError(f"the model computes NaN or infinity for frame {frame.number}; give intact weights")
        yield frame, found.detections


@contextlib.contextmanager
def _progress(total: int | None) -> Generator[Callable[[int], None]]:
    """Show the frames done, and how many of them a second."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        "predicting",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as progress:
        task = progress.add_task("", total=total, rate="")
        start = time.monotonic()

        def show(frames: int) -> None:
            rate = frames / max(time.monotonic() - start, 1e-9)
            progress.update(task, completed=frames, rate=f"{rate:.1f} frames/s")

        yield show
