"""Results of ``cdetr predict`` for one video: a video with boxes, and a line of JSON for every frame that is computed."""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer
from PIL import Image

from conditional_detr.drawing import color_of, draw_boxes
from conditional_detr.files import whole_file
from conditional_detr.inference.tracking import LOW_SCORE, Tracker
from conditional_detr.structures import Detections
from conditional_detr.text import counted
from conditional_detr.video import Frame, Video, VideoWriter

if TYPE_CHECKING:
    from conditional_detr.cli.predict_video import VideoSettings
    from conditional_detr.inference.detector import Detector

_REMEMBERED_SECONDS = 1.0  # of an object that is out of sight


class VideoResults:
    """Writes the results of a video. Files appear at the end, whole; when no frame is done, none does.

    least: the score from which detections have to be given. frames, computed, objects: numbers so far.
    """

    def __init__(self, path: Path | None, video: Video, info: dict[str, Any], settings: "VideoSettings") -> None:
        """path: of the video; the lines get its name with .jsonl. Without, lines can only be printed."""
        self._path, self._video, self._info, self._settings = path, video, info, settings
        self.least, self.frames, self.computed, self.objects = 0.0, 0, 0, 0
        self._threshold: float | dict[int, float] = 0.0
        self._shown: tuple[Detections, list[int] | None] | None = None
        self._writer: VideoWriter | None = None
        self._lines: BinaryIO | None = None
        self._stack = contextlib.ExitStack()
        self._tracker: Tracker | None = None
        if settings.track:
            self._tracker = Tracker(max(round(video.fps * _REMEMBERED_SECONDS / settings.every), 1))

    def __enter__(self) -> "VideoResults":
        if self._path is None:
            return self
        with contextlib.ExitStack() as stack:
            video = stack.enter_context(whole_file(self._path))
            # Renamed first, because the first line tells the next command that both files are of this one.
            lines = stack.enter_context(whole_file(self._path.with_suffix(".jsonl")))
            self._lines = stack.enter_context(lines.open("wb", buffering=0))
            self._writer = VideoWriter(video, self._video.size, self._video.fps)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.frames or any(error):
            self._stack.__exit__(*error)
            return
        with contextlib.suppress(_NothingError):
            self._stack.__exit__(_NothingError, _NothingError(), None)  # removes the files

    def start(self, detector: "Detector") -> None:
        """Take the thresholds of the detector, and write the line on how the results are made."""
        numbers = self._threshold = detector.thresholds(self._settings.threshold)
        lowest = min(numbers.values()) if isinstance(numbers, Mapping) else numbers
        self.least = min(lowest, LOW_SCORE) if self._tracker else lowest
        if isinstance(numbers, Mapping):
            self._info["thresholds"] = [numbers[id_] for id_ in detector.categories.ids]
        self._write({"info": self._info})
        self._started = time.monotonic()

    def add(self, frame: Frame, found: Detections | None) -> None:
        """Write a frame. found: None for a frame that is not computed; it shows the boxes of the one before.

        Raises ``OSError`` on a full disk.
        """
        if found is not None:
            shown, unsure = self._split(found)
            ids = None if self._tracker is None else self._tracker.update(shown, unsure)
            self._shown = shown, ids
        if self._writer is not None:
            self._writer.add(frame.image if self._shown is None else _drawn(frame.image, *self._shown), frame.seconds)
        if found is not None and self._shown is not None:
            self._write({"frame": frame.number, "seconds": round(frame.seconds, 6), "objects": _objects(*self._shown)})
            self.computed += 1
            self.objects += len(self._shown[0])
        self.frames += 1

    def _split(self, found: Detections) -> tuple[Detections, Detections]:
        """Return the detections from the threshold on, and the others."""
        mask = found.reaches(self._threshold)
        return found[mask], found[~mask]

    def _write(self, record: dict[str, Any]) -> None:
        """Write a line completely or not at all. JSON in ASCII, because names may be invalid text."""
        text = json.dumps(record)
        if self._lines is not None:
            start, rest = self._lines.tell(), memoryview(text.encode() + b"\n")
            try:
                while rest:
                    rest = rest[self._lines.write(rest) :]
            except OSError:
                self._lines.truncate(start)
                raise
        if self._settings.as_json:
            typer.echo(text)

    def finish(self) -> None:
        """Finish the video. Raises ``OSError`` on a full disk; the video can be played nonetheless."""
        if self._writer is not None:
            self._writer.close()

    def summary(self) -> str:
        rate = self.frames / max(time.monotonic() - self._started, 1e-9)
        return (
            f"{counted(self.objects, 'object')} in {self.computed} of {self.frames} frames of {self._video.source}, "
            f"{rate:.1f} frames per second"
        )


class _NothingError(Exception):
    """There is nothing to be kept."""


def _drawn(image: Image.Image, found: Detections, ids: list[int] | None) -> Image.Image:
    if ids is None:
        return found.draw(image)
    captions = [f"{id_} {each.name} {each.score:.2f}" for id_, each in zip(ids, found, strict=True)]
    return draw_boxes(image, found.boxes, captions, [color_of(id_) for id_ in ids])


def _objects(found: Detections, ids: list[int] | None) -> list[dict[str, Any]]:
    objects = [
        {"category_id": label, "category_name": name, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
        for (x0, y0, x1, y1), score, label, name in found
    ]
    return objects if ids is None else [{**each, "track_id": id_} for each, id_ in zip(objects, ids, strict=True)]
