"""Render objects, and paint them on a picture that knows which pixels belong to which object."""

import math
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from conditional_detr.data.scenes.arrays import Floats, Number
from conditional_detr.data.scenes.parts import HOLE, Object, rotated

NOTHING = -1  # owner of the background
VISIBLE = 0.3  # part of an object that has to be visible for it to be annotated
_SMALLEST = (2, 4)  # pixels of the shorter and the longer side of the box of an annotated object


class Pose(NamedTuple):
    """How an object is seen. longer: longer side of its box in pixels; aspect: width / height before it is turned by ``angle``
    (radians); taper: how much narrower its upper end is, as a part of its width; mirrored: left and right are exchanged.
    """

    longer: Number
    aspect: Number = 1
    angle: Number = 0
    taper: Number = 0
    mirrored: bool = False


class Sprite(NamedTuple):
    """A rendered object. colors: ``[h, w, 3]``; coverage: ``[h, w]``, the part of each pixel that it covers."""

    colors: Floats
    coverage: Floats


def render(parts: Object, pose: Pose, colors: Floats) -> Sprite:
    """Draw an object with smooth edges. colors: ``[n, 3]``, which the parts refer to."""
    thin = min(pose.aspect, 1 / pose.aspect) ** 0.5  # of the frame, whose area stays that of a square
    posed = _posed(np.concatenate([part.points for part in parts]), pose)
    lengths = [len(part.points) for part in parts]
    margins = np.repeat([0 if part.width is None else part.width * thin / 2 for part in parts], lengths)[:, None]
    low = (posed - margins).min(0)
    extent = (posed + margins).max(0) - low
    finer = 4 if pose.longer < 16 else 2 if pose.longer < 110 else 1
    scale = pose.longer * finer / float(extent.max())
    width, height = (math.ceil(side * scale / finer) + 2 for side in extent.tolist())
    rgb = [(int(r), int(g), int(b)) for r, g, b in colors.tolist()]
    # The fourth channel is the coverage. As RGBA, Pillow would multiply the others by it and divide again.
    image = Image.new("RGBX", (width * finer, height * finer), (*rgb[0], 0))
    pen = ImageDraw.Draw(image)
    placed = [(x, y) for x, y in ((posed - low) * scale + (finer - 0.5)).tolist()]
    for part, end, length in zip(parts, accumulate(lengths), lengths, strict=True):
        points = placed[end - length : end]
        fill = (*rgb[0], 0) if part.color == HOLE else (*rgb[part.color], 255)
        if part.width is None:
            pen.polygon(points, fill=fill)
        else:
            _draw_stroke(pen, points, max(part.width * thin * scale, 1.2 * finer), fill)
    pixels = np.asarray(image.reduce(finer) if finer > 1 else image, dtype=np.float32)
    return Sprite(pixels[..., :3], pixels[..., 3] * np.float32(1 / 255))


def _posed(points: Floats, pose: Pose) -> Floats:
    stretch = math.sqrt(pose.aspect)
    posed = points * (-stretch if pose.mirrored else stretch, 1 / stretch)
    if pose.taper:
        posed[:, 0] *= 1 + pose.taper * (points[:, 1] - 1) / 2
    return rotated(posed, pose.angle) if pose.angle else posed


def _draw_stroke(
    pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: Number, fill: tuple[int, int, int, int]
) -> None:
    pen.line(points, fill=fill, width=max(1, round(width)), joint="curve")
    if width > 4:  # round ends
        half = width / 2
        for x, y in (points[0], points[-1]):
            pen.ellipse((x - half, y - half, x + half, y + half), fill=fill)


class Canvas:
    """A picture under work. pixels: float32 ``[h, w, 3]`` of 0..255. owner: the object that each pixel shows, or ``NOTHING``."""

    def __init__(self, background: Floats) -> None:
        self.pixels = np.array(background, dtype=np.float32)
        self.owner = np.full(background.shape[:2], NOTHING, dtype=np.int16)
        self._objects: list[
            tuple[int, tuple[slice, slice]]
        ] = []  # pixels of an object if nothing hid it, and its region

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width in pixels."""
        return len(self.owner), len(self.owner[0])

    def region(self, sprite_shape: tuple[int, ...], left: int, top: int) -> tuple[slice, slice]:
        """Return the rows and columns of the picture under something of this shape, which may be empty."""
        height, width = self.size
        rows = slice(min(max(top, 0), height), max(min(top + sprite_shape[0], height), 0))
        columns = slice(min(max(left, 0), width), max(min(left + sprite_shape[1], width), 0))
        return rows, columns

    def paint(self, sprite: Sprite, left: int, top: int, *, opacity: Number = 1, counted: bool = True) -> None:
        """Paint a sprite. counted: whether it is an object; what is not hides objects where it is more than half opaque."""
        rows, columns = self.region(sprite.coverage.shape, left, top)
        inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        full = int((sprite.coverage >= 0.5).sum())
        if counted:
            self._objects.append((full, (rows, columns)))
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        coverage = sprite.coverage[inside]
        below = self.pixels[rows, columns]
        below += (coverage * np.float32(opacity))[..., None] * (sprite.colors[inside] - below)
        if counted:
            self.owner[rows, columns][coverage >= 0.5] = len(self._objects) - 1
        else:
            self.owner[rows, columns][coverage * opacity >= 0.5] = NOTHING

    def darken(self, coverage: Floats, left: int, top: int, amount: Number, blur: Number) -> None:
        """Cast a soft shadow of this shape ``[h, w]``. amount: part of the light that is taken; blur: in pixels."""
        margin = math.ceil(2 * blur)
        padded = np.pad((coverage * 255).astype(np.uint8), margin)
        soft = np.asarray(Image.fromarray(padded).filter(ImageFilter.BoxBlur(blur)), dtype=np.float32)
        left, top = left - margin, top - margin
        rows, columns = self.region(soft.shape, left, top)
        if rows.stop > rows.start and columns.stop > columns.start:
            part = soft[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            self.pixels[rows, columns] *= 1 - part[..., None] * np.float32(amount / 255)

    def boxes(self) -> list[tuple[int, int, int, int] | None]:
        """Return the box of the visible pixels of each object: x, y, width, height; None if too little is visible."""
        return [self._box(index, full, region) for index, (full, region) in enumerate(self._objects)]

    def _box(self, index: int, full: int, region: tuple[slice, slice]) -> tuple[int, int, int, int] | None:
        shown = self.owner[region] == index
        if shown.sum() < max(VISIBLE * full, 1):
            return None
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        x, y = region[1].start + int(columns[0]), region[0].start + int(rows[0])
        width, height = int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
        small = min(width, height) < _SMALLEST[0] or max(width, height) < _SMALLEST[1]
        return None if small else (x, y, width, height)
