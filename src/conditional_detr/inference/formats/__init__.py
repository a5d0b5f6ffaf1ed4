"""Formats of detections beside COCO data. A format is one module here and one entry in ``FORMATS``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast, runtime_checkable

from conditional_detr.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from conditional_detr.record import Categories

FORMATS = ("yolo", "voc", "labelstudio", "cvat", "csv", "parquet")

MODEL = "the model"  # in messages about its categories

Corners = tuple[float, float, float, float]


class DetectedObject(NamedTuple):
    """An object. row: logit index of its category. box: x, y, width, height in pixels, not clipped to the image."""

    row: int
    category_id: int
    name: str
    box: tuple[float, float, float, float]
    score: float


class DetectedImage(NamedTuple):
    """An image and the objects in it.

    number: id, from 1. file_name: as the user gave it. stem: name without folder and suffix, which no other image has. place: path
    below the folder that holds all images.
    """

    number: int
    file_name: str
    stem: str
    place: str
    width: int
    height: int
    objects: list[DetectedObject]

    def clipped(self) -> Iterator[tuple[DetectedObject, Corners]]:
        """Yield objects with x0, y0, x1, y1 clipped to the image, for tools that refuse anything beyond it."""
        for each in self.objects:
            x, y, width, height = each.box
            x0, x1 = (min(max(float(value), 0.0), float(self.width)) for value in (x, x + width))
            y0, y1 = (min(max(float(value), 0.0), float(self.height)) for value in (y, y + height))
            if x1 > x0 and y1 > y0:
                yield each, (x0, y0, x1, y1)


@dataclass(frozen=True)
class DetectionSet:
    """Detections in any number of images. model: name and version. images: yields them anew at every call, also those without objects."""

    categories: "Categories"
    model: str
    images: Callable[[], Iterator[DetectedImage]]


@runtime_checkable
class Format(Protocol):
    """Interface of a format module."""

    NAME: str
    """name of the file or folder that it writes"""
    XML: bool
    """whether names of categories are written into XML, which can't hold all of them"""
    PER_IMAGE: bool
    """whether there is a file for every image, named after it"""

    def write(self, path: Path, found: DetectionSet) -> None:
        """Write the detections to a file or folder that does not exist yet. Memory is constant for any number of images."""
        ...


def load(name: str) -> Format:
    """Import a format named in ``FORMATS``. Raises ``SettingsError`` for another name, and where a library is missing."""
    if name not in FORMATS:
        raise SettingsError(
            f"format {name!r} does not exist{did_you_mean(name, FORMATS)}; give one of coco, {', '.join(FORMATS)}",
            argument="format",
        )
    return cast(Format, import_module(f"{__name__}.{name}"))


def encodable(text: str) -> str:
    """Return text that UTF-8 can hold: undecodable bytes of file names become escapes."""
    return text.encode(errors="backslashreplace").decode()
