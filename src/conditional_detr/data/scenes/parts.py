"""What objects consist of: outlines and strokes in a frame from -1 to 1, x to the right and y down."""

import math
from typing import NamedTuple

import numpy as np

from conditional_detr.data.scenes.arrays import Floats, Number, Points, Random

HOLE = -1  # color of a part that is cut out


class Part(NamedTuple):
    """A part of an object; later parts lie on earlier ones.

    points: ``[n, 2]``, the outline, or the line of a stroke. color: index in the colors of the object (0 main, 1
    and 2 others, 3 a dark one, 4 a light one), or ``HOLE``. width: of a stroke, in units of the frame; None for a filled outline.
    """

    points: Floats
    color: int = 0
    width: Number | None = None


Object = list[Part]


def polygon(points: Points, color: int = 0) -> Part:
    return Part(np.array(points, dtype=float), color)


def box(left: Number, top: Number, right: Number, bottom: Number, color: int = 0) -> Part:
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color)


def disk(
    x: Number, y: Number, radius: Number, color: int = 0, *, height: Number | None = None, turn: Number = 0
) -> Part:
    """Return an ellipse. radius: half of its width; height: half of its height; turn: an angle in radians."""
    points = _CIRCLE * (radius, radius if height is None else height)
    return Part((rotated(points, turn) if turn else points) + (x, y), color)


def stroke(points: Points | Floats, width: Number, color: int = 0) -> Part:
    return Part(np.asarray(points, dtype=float), color, width)


def arc(
    x: Number, y: Number, radius: Number, start: Number, end: Number, *, height: Number | None = None, count: int = 16
) -> Floats:
    """Return points ``[count, 2]`` on an ellipse between two angles in radians, clockwise from the right."""
    angles = np.linspace(start, end, count)
    vertical = radius if height is None else height
    return np.stack([x + radius * np.cos(angles), y + vertical * np.sin(angles)], axis=1)


def radial(radii: Floats, start: Number = 0) -> Floats:
    """Return points at these distances from the center, in equal steps of the angle."""
    angles = start + np.arange(len(radii)) * (2 * math.pi / len(radii))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def smooth_outline(rng: Random, roughness: Number, waves: int = 5, count: int = 40) -> Floats:
    """Return a smooth random outline around the center. roughness: relative variation of the radius, up to about 0.5."""
    angles = np.arange(count) * (2 * math.pi / count)
    orders = np.arange(2, 2 + waves)
    strengths = rng.standard_normal(waves) * roughness / np.sqrt(orders)
    phases = rng.uniform(0, 2 * math.pi, waves)
    radii = 1 + (strengths[:, None] * np.cos(orders[:, None] * angles + phases[:, None])).sum(0)
    return radial(np.clip(radii, 0.35, 1.8))


def rotated(points: Floats, angle: Number) -> Floats:
    """Return points turned around the center, clockwise by an angle in radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


_CIRCLE = arc(0, 0, 1, 0, 2 * math.pi, count=29)[:-1]
