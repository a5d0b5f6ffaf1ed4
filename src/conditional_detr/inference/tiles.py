"""Find small objects in large images: detect in overlapping tiles and in the whole image, and merge the results.

A model sees an image at a fixed size, so that small objects of a large image vanish. In a tile they are larger.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from conditional_detr.boxes import area
from conditional_detr.data.images import ImageLike
from conditional_detr.errors import ImageError, InputError, SettingsError
from conditional_detr.inference.detector import Detector, Found, Threshold
from conditional_detr.structures import Detections

MAX_TILES = 10_000  # of an image
_SAME_IOU = 0.4  # two boxes of different tiles that overlap so much are of one object
_INSIDE = 0.5  # part of a cut box that lies in a box of the whole object
_MARGIN = 0.02  # of a tile; a box that ends so close to a border is cut, because boxes are not exact
_CUT_COUNTS = 0.25  # of the score of a cut box, when it competes with other boxes


@dataclass(frozen=True)
class Tiling:
    """How images are cut. side: of a tile, in pixels. overlap: the least part that neighbors share, from 0 and below 1."""

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        """Raise ``SettingsError`` for numbers out of range."""
        if not isinstance(self.side, Integral) or self.side < 1:
            raise SettingsError(
                f"the side of tiles is {self.side!r}; give a whole number of pixels from 1", argument="side"
            )
        if not isinstance(self.overlap, Real) or not 0 <= self.overlap <= 0.9:
            raise SettingsError(f"the overlap of tiles is {self.overlap!r}; give a part in 0..0.9", argument="overlap")

    def tiles(self, width: int, height: int) -> list[tuple[int, int, int, int]]:
        """Return the tiles of an image as x0, y0, x1, y1 in pixels, row by row, all of one size. Raises ``ImageError`` for too many."""
        columns, rows = self._starts(width), self._starts(height)
        if len(columns) * len(rows) > MAX_TILES:
            raise ImageError(
                f"an image of {width} x {height} pixels has {len(columns) * len(rows)} tiles of {self.side} pixels, more than "
                f"{MAX_TILES}; give larger tiles"
            )
        return [(x, y, min(x + self.side, width), min(y + self.side, height)) for y in rows for x in columns]

    def _starts(self, length: int) -> range | list[int]:
        """Return where tiles start along a side of an image: at equal distances, so that the last one ends with the image."""
        rest = max(length - self.side, 0)
        steps = math.ceil(rest / max(int(self.side * (1 - self.overlap)), 1))
        if steps > MAX_TILES:
            return range(steps + 1)  # counted only
        return [round(i * rest / max(steps, 1)) for i in range(steps + 1)]


def predict_tiles(
    detector: Detector, image: ImageLike, tiling: Tiling, threshold: Threshold = 0.5, *, batch_size: int = 1
) -> Detections:
    """Find objects in a large image, in its tiles and in the whole of it, each object once.

    detector: the model. image, threshold: as in ``Detector.predict``. tiling: side and overlap of the tiles in pixels of the image.
    batch_size: number of tiles in a forward pass. Raises ``ImageError`` for an image that can't be used.
    """
    found = next(stream_tiles(detector, [image], tiling, threshold, batch_size=batch_size))
    if isinstance(found, InputError):
        raise found
    return found.detections


def stream_tiles(
    detector: Detector,
    images: Iterable[ImageLike],
    tiling: Tiling,
    threshold: Threshold = 0.5,
    *,
    batch_size: int = 1,
) -> Iterator[Found | InputError]:
    """Yield images with the objects found in their tiles and in the whole image, as ``Detector.stream`` does.

    An image that is not larger than a tile gets the detections of ``Detector.stream``. batch_size: number of tiles in a
    forward pass. All tiles of an image have one size, so nothing is padded.
    """
    for whole in detector.stream(images, threshold):
        if isinstance(whole, InputError):
            yield whole
            continue
        try:
            yield _in_tiles(detector, whole, tiling, threshold, batch_size)
        except InputError as error:
            yield error


def _in_tiles(detector: Detector, whole: Found, tiling: Tiling, threshold: Threshold, batch_size: int) -> Found:
    width, height = whole.image.size
    tiles = tiling.tiles(width, height)
    if len(tiles) == 1:
        return whole
    parts, cut, best = [whole.detections], [torch.zeros(len(whole.detections), dtype=torch.bool)], [whole.best_score]
    crops = (whole.image.crop(tile) for tile in tiles)
    for tile, found in zip(tiles, detector.stream(crops, threshold, batch_size=batch_size), strict=True):
        if isinstance(found, InputError):
            raise found
        corner = torch.tensor([*tile[:2], *tile[:2]], dtype=torch.float32)
        inside = found.detections
        parts.append(Detections(inside.boxes + corner, inside.scores, inside.labels, inside.names))
        cut.append(_cut(parts[-1].boxes, tile, (width, height)))
        best.append(found.best_score)
    return Found(whole.image, merged(parts, torch.cat(cut)), float(torch.tensor(best, dtype=torch.float64).max()))


def _cut(boxes: Tensor, tile: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """Tell which boxes end at a border of their tile that is not one of the image. size: (width, height) of the image."""
    x0, y0, x1, y1 = tile
    margin = max(1.0, _MARGIN * max(x1 - x0, y1 - y0))
    low = torch.tensor([start + margin if start else -math.inf for start in (x0, y0)])
    high = torch.tensor([end - margin if end < whole else math.inf for end, whole in zip((x1, y1), size, strict=True)])
    return (boxes[:, :2] < low).any(1) | (boxes[:, 2:] > high).any(1)


def merged(parts: list[Detections], cut: Tensor) -> Detections:
    """Return the detections of all parts of an image, best first, each object once.

    Of two boxes of one category from different parts that show the same object, the better one stays; a cut one counts a quarter.
    Boxes of one part are never merged, because the model finds every object once. cut: whether each detection of the parts,
    one after the other, ends at a border where its object may go on.
    """
    boxes, scores = torch.cat([part.boxes for part in parts]), torch.cat([part.scores for part in parts])
    labels = torch.cat([part.labels for part in parts])
    names = [name for part in parts for name in part.names]
    origins = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
    order = torch.where(cut, scores * _CUT_COUNTS, scores).argsort(descending=True, stable=True)
    areas = area(boxes).clamp(min=1e-6)
    gone = torch.zeros(len(boxes), dtype=torch.bool)
    for place, i in enumerate(order.tolist()):
        if gone[i]:
            continue
        rest = order[place + 1 :]
        rest = rest[(labels[rest] == labels[i]) & (origins[rest] != origins[i]) & ~gone[rest]]
        inner = torch.minimum(boxes[rest, 2:], boxes[i, 2:]) - torch.maximum(boxes[rest, :2], boxes[i, :2])
        shared = inner.clamp(min=0).prod(1)
        same = shared / (areas[rest] + areas[i] - shared) >= _SAME_IOU
        if not cut[i]:
            same |= cut[rest] & (shared / areas[rest] >= _INSIDE)
        gone[rest[same]] = True
    everything = Detections(boxes, scores, labels, names)
    kept = (~gone).nonzero()[:, 0]
    return everything[kept[scores[kept].argsort(descending=True, stable=True)]]
