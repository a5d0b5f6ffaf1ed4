"""Results of ``cdetr predict``: a picture and a line of JSON per image, and in the end all detections as COCO data.

The lines are written while the command runs. So nothing is lost when it ends early, and the same command goes on from them.
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from conditional_detr.cli import formats, outputs
from conditional_detr.errors import ImageError, InputError
from conditional_detr.files import whole_file

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector, Found, Threshold
    from conditional_detr.inference.formats import DetectionSet
    from conditional_detr.inference.tiles import Tiling

_IN_MEMORY = 64 * 2**20  # bytes of lines that are kept in memory when there is no folder for them
_LONGEST_SIDE = 65_500  # of a JPEG in Pillow


class Image(NamedTuple):
    """What identifies an image and its picture, so that their line holds. URLs have no size and time."""

    file_name: str
    bytes: int | None
    mtime_ns: int | None
    picture: str


class Line(NamedTuple):
    """Line of an image in the file. start, length: its place in bytes."""

    image: Image
    start: int
    length: int
    failed: bool
    objects: int
    best_score: float


class Predictions:
    """Results of one command for its images. With ``out`` they are files in that folder; without, they can only be printed.

    names: formats that are written in the end, besides COCO data. Raises ``SettingsError`` when a result would replace a file
    that this command did not write, and for formats that can't be written.
    """

    def __init__(self, files: Sequence[str | Path], out: Path | None, names: Sequence[str] = ()) -> None:
        self.files, self.out = files, out
        self._formats = formats.chosen(names, out)
        self._found: DetectionSet
        self.info: dict[str, Any] = {}
        self._categories: list[dict[str, Any]] = []
        self._pictures = outputs.picture_names(files)
        self._images: dict[str | Path, Image] = {}
        self._lines: dict[str | Path, Line] = {}
        self._stack = contextlib.ExitStack()
        self._file: BinaryIO
        if out is not None:
            outputs.refuse_others(out, self._pictures.values())

    def __enter__(self) -> "Predictions":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def written(self) -> str:
        """Names of the files that hold the detections, for messages."""
        *most, last = ("pictures", outputs.DATA, *(format_.NAME for format_ in self._formats))
        return f"{', '.join(most)} and {last}"

    @property
    def renamed(self) -> str:
        """A sentence about images that have another name in a format; empty without any."""
        return formats.renamed(self._formats, self.files, self._pictures)

    @property
    def done(self) -> list[Line]:
        """Lines of the images that could be used."""
        return [line for line in self._lines.values() if not line.failed]

    def begin(
        self, detector: "Detector", threshold: "Threshold", batch_size: int, tiling: "Tiling | None" = None
    ) -> tuple[list[str | Path], str]:
        """Open the file of lines. Return the images to be computed, and a remark on earlier results, which may be empty.

        Images of an earlier command keep their lines when the model, both numbers and the file of the image are still the
        same. The other images of a batch must keep theirs too, because scores depend on the padding of a batch. Raises
        ``SettingsError`` when another command is writing into the folder.
        """
        from conditional_detr.inference.fingerprint import fingerprint

        self.info = outputs.information(
            threshold=threshold,
            batch_size=batch_size,
            tiles=tiling and tiling.side,
            overlap=tiling and tiling.overlap,
            runtime=detector.runtime,
            model=fingerprint(detector),
        )
        formats.check_categories(self._formats, detector.categories)
        numbers = detector.thresholds(threshold)
        if isinstance(numbers, dict):
            self.info["thresholds"] = [numbers[id_] for id_ in detector.categories.ids]
        categories = zip(detector.categories.ids, detector.categories.names, strict=True)
        self._categories = [{"id": id_, "name": name} for id_, name in categories]
        self._found = formats.detection_set(
            detector, self.info["model"], self.files, self._pictures, lambda: self._records(failed=False)
        )
        self._images = {file: self._image(file) for file in self.files}
        if self.out is None:
            temporary = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - the stack closes it
            self._file = cast(BinaryIO, self._stack.enter_context(temporary))
            return list(self.files), ""
        self.out.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(outputs.locked(self.out))
        path, remark = self.out / outputs.LINES, ""
        if path.exists():
            changed = outputs.differences(outputs.read_info(path), self.info)
            if not changed:
                return self._go_on(path)
            remark = f"{path} was written with {changed}; its results are replaced"
            if not outputs.last_line(path):  # of an image: its command did not finish
                kept = outputs.unused(path)
                os.replace(path, kept)
                remark = f"{path} was written with {changed} and not finished; it is kept as {kept}"
        with whole_file(path) as partial:
            partial.write_text(json.dumps({"info": self.info}) + "\n")
        self._open(path)
        return list(self.files), remark

    def _image(self, file: str | Path) -> Image:
        size = time = None
        if isinstance(file, Path):
            with contextlib.suppress(OSError):
                found = file.stat()
                size, time = found.st_size, found.st_mtime_ns
        return Image(str(file), size, time, self._pictures[file])

    def _open(self, path: Path) -> None:
        # Unbuffered: every line is in the file at once, and a full disk is noticed with the line that does not fit.
        opened = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        self._file = cast(BinaryIO, self._stack.enter_context(os.fdopen(opened, "r+b", buffering=0)))

    def _go_on(self, path: Path) -> tuple[list[str | Path], str]:
        """Keep lines of an earlier command, as ``begin`` says. A last line that a kill cut short is removed."""
        earlier: dict[str, Line] = {}  # by picture, because a later image may have taken the picture of an earlier one
        end, ids = 0, {each["id"] for each in self._categories}
        with path.open("rb") as file:
            for text in file:
                if not text.endswith(b"\n"):
                    break
                if line := _parsed(text, end, ids):
                    earlier[line.image.picture] = line
                end += len(text)
        self._open(path)
        self._file.truncate(end)
        size = self.info["batch_size"]
        todo: list[str | Path] = []
        for batch in (self.files[start : start + size] for start in range(0, len(self.files), size)):
            lines = {file: earlier.get(self._pictures[file]) for file in batch}
            kept = {file: line for file, line in lines.items() if line is not None and self._holds(file, line)}
            if len(kept) == len(batch):
                self._lines.update(kept)
            else:
                todo += batch
        done = len(self.files) - len(todo)
        return todo, f"{done} of {len(self.files)} images are done already, as {path} says" if done else ""

    def _holds(self, file: str | Path, line: Line) -> bool:
        assert self.out is not None
        return not line.failed and line.image == self._images[file] and (self.out / self._pictures[file]).is_file()

    def add(self, file: str | Path, found: "Found") -> None:
        """Write the picture and the line of an image. Raises ``OSError`` on a full disk; what was written before stays whole.

        Raises ``ImageError`` when the numbers of the model are not finite.
        """
        if not (found.detections.boxes.isfinite().all() and found.best_score == found.best_score):
            raise ImageError(f"the model computes NaN or infinity for image {file}; give intact weights")
        if self.out is not None:
            picture = found.detections.draw(found.image)
            picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
            content = io.BytesIO()
            picture.save(content, "JPEG", quality=92)
            with whole_file(self.out / self._pictures[file]) as partial:
                partial.write_bytes(outputs.sealed(content.getvalue()))
        objects = [
            {"category_id": label, "category_name": name, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            for (x0, y0, x1, y1), score, label, name in found.detections
        ]
        width, height = found.image.size
        self._append(file, {"width": width, "height": height, "best_score": found.best_score, "objects": objects})

    def skip(self, file: str | Path, error: InputError) -> None:
        """Write the line of an image that can't be used."""
        self._append(file, {"error": str(error)})

    def _append(self, file: str | Path, record: dict[str, Any]) -> None:
        # JSON in ASCII, because names may be invalid text.
        text = json.dumps({**self._images[file]._asdict(), **record}).encode() + b"\n"
        line = _parsed(text, self._write(text))
        assert line is not None
        self._lines[file] = line._replace(image=self._images[file])  # one copy in memory

    def _write(self, text: bytes) -> int:
        """Append a line completely or not at all, and return its place."""
        self._file.seek(0, os.SEEK_END)
        start, rest = self._file.tell(), memoryview(text)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(start)
            raise
        return start

    def finish(self) -> None:
        """Write the detections of all images as COCO data, and in the other formats that were asked for."""
        if self.out is None:
            return
        digest = hashlib.sha256()
        with whole_file(self.out / outputs.DATA) as partial, partial.open("wb") as file:
            for part in self.coco():
                digest.update(part.encode())
                file.write(part.encode())
        self._write(json.dumps({outputs.FINISHED: digest.hexdigest()}).encode() + b"\n")
        formats.write_all(self.out, self._formats, self._found)

    def coco(self) -> Iterator[str]:
        """Yield the parts of the text of COCO data with the results so far. Memory is constant for any number of images."""
        complete = len(self._lines) == len(self.files)
        yield json.dumps({"info": {**self.info, "complete": complete}})[:-1]
        yield from _list(
            "images",
            (
                {"id": number, **{key: record[key] for key in ("file_name", "width", "height", "best_score")}}
                for number, record in self._records(failed=False)
            ),
        )
        yield from _list("annotations", self._annotations())
        yield from _list("categories", self._categories)
        failed = self._records(failed=True)
        yield from _list("skipped", ({"file_name": each["file_name"], "reason": each["error"]} for _, each in failed))
        yield "}\n"

    def _annotations(self) -> Iterator[dict[str, Any]]:
        id_ = 0
        for number, record in self._records(failed=False):
            for each in record["objects"]:
                id_ += 1
                area = each["bbox"][2] * each["bbox"][3]
                yield {"id": id_, "image_id": number, **each, "area": area, "iscrowd": 0}

    def _records(self, failed: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines of the images that could be used, or could not, with the numbers of the images from 1."""
        for number, file in enumerate(self.files, start=1):
            line = self._lines.get(file)
            if line is not None and line.failed == failed:
                self._file.seek(line.start)
                yield number, json.loads(self._file.read(line.length))


def _list(key: str, records: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield f',\n"{key}": ['
    for i, record in enumerate(records):
        yield f"{',' if i else ''}\n{json.dumps(record)}"
    yield "]"


def _parsed(text: bytes, start: int, ids: Container[int] | None = None) -> Line | None:
    """Read the line of an image. Return None for another line, and for one that is damaged or has an id that is not in ``ids``."""
    try:
        record: dict[str, Any] = json.loads(text)
        image = Image(*(record[key] for key in Image._fields))
        hash(image)  # raises TypeError for lists and objects in the place of texts and numbers
        if "error" in record:
            return Line(image, start, len(text), True, 0, 0.0)
        for each in record["objects"]:
            _, _, width, height = map(float, each["bbox"])
            _ = width * height, each["score"]
            if ids is not None and each["category_id"] not in ids:
                return None
        _ = record["width"], record["height"]
        return Line(image, start, len(text), False, len(record["objects"]), float(record["best_score"]))
    except (LookupError, TypeError, ValueError):
        return None
