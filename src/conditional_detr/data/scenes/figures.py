"""Objects of one outline: geometric figures, strokes and blobs."""

import math

import numpy as np

from conditional_detr.data.scenes.arrays import Random
from conditional_detr.data.scenes.choices import between, chance, one_of
from conditional_detr.data.scenes.parts import (
    HOLE,
    Object,
    Part,
    arc,
    box,
    disk,
    polygon,
    radial,
    rotated,
    smooth_outline,
    stroke,
)


def rectangle(rng: Random) -> Object:
    if chance(rng, 0.4):  # rounded
        radius = between(rng, 0.15, 0.5)
        corners = [(1, 1, 0), (-1, 1, 1), (-1, -1, 2), (1, -1, 3)]
        inner = 1 - radius
        turns = [
            arc(x * inner, y * inner, radius, k * math.pi / 2, (k + 1) * math.pi / 2, count=6) for x, y, k in corners
        ]
        return [Part(np.concatenate(turns))]
    return [box(-1, -1, 1, 1)]


def triangle(rng: Random) -> Object:
    return [polygon([(-1, 1), (between(rng, -1, 1), -1), (1, 1)])]


def trapezoid(rng: Random) -> Object:
    left, shift = between(rng, -0.8, 0), between(rng, -0.6, 0.6)
    right = between(rng, 0.1, 0.8)
    return [polygon([(left + shift, -1), (right + shift, -1), (1, 1), (-1, 1)])]


def regular_polygon(rng: Random) -> Object:
    return [Part(radial(np.ones(int(rng.integers(5, 9)))))]


def star(rng: Random) -> Object:
    tips = int(rng.integers(4, 10))
    return [Part(radial(np.where(np.arange(2 * tips) % 2, between(rng, 0.3, 0.65), 1.0)))]


def ellipse(rng: Random) -> Object:
    return [disk(0, 0, 1)]


def ring(rng: Random) -> Object:
    return [disk(0, 0, 1), disk(0, 0, between(rng, 0.4, 0.8), HOLE)]


def frame(rng: Random) -> Object:
    inner = between(rng, 0.5, 0.8)
    return [box(-1, -1, 1, 1), box(-inner, -inner, inner, inner, HOLE if chance(rng, 0.6) else 1)]


def crescent(rng: Random) -> Object:
    offset = between(rng, 0.3, 0.7)
    return [disk(0, 0, 1), disk(offset, 0, between(rng, 0.75, 0.95), HOLE)]


def sector(rng: Random) -> Object:
    opening = between(rng, 0.2, 1.6)
    return [Part(np.concatenate([[(0.0, 0.0)], arc(0, 0, 1, opening, 2 * math.pi - opening, count=24)]))]


def cross(rng: Random) -> Object:
    half = between(rng, 0.15, 0.4)
    center = between(rng, -0.4, 0.2)
    return [box(-half, -1, half, 1), box(-1, center - half, 1, center + half)]


def arrow(rng: Random) -> Object:
    shaft, head = between(rng, 0.15, 0.4), between(rng, -0.2, 0.5)
    return [
        polygon([(-1, -shaft), (head, -shaft), (head, -1), (1, 0), (head, 1), (head, shaft), (-1, shaft)]),
    ]


def heart(rng: Random) -> Object:
    angles = np.linspace(0, 2 * math.pi, 32, endpoint=False)
    x = np.sin(angles) ** 3
    y = -(13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)) / 15
    return [Part(np.stack([x, y], axis=1))]


def drop(rng: Random) -> Object:
    return [Part(np.concatenate([[(0.0, -1.0)], arc(0, 0.35, 0.65, -0.5, math.pi + 0.5, count=20)]))]


def gear(rng: Random) -> Object:
    teeth, inner = int(rng.integers(7, 15)), between(rng, 0.7, 0.88)
    radii = np.tile([inner, 1, 1, inner], teeth)
    hub = disk(0, 0, between(rng, 0.15, 0.4), HOLE if chance(rng, 0.6) else 1)
    return [Part(radial(radii)), hub]


_LETTERS = (  # A E F H K L M N T V X Y Z 4 7
    [[(-0.8, 1), (0, -1), (0.8, 1)], [(-0.45, 0.25), (0.45, 0.25)]],
    [[(0.7, -1), (-0.7, -1), (-0.7, 1), (0.7, 1)], [(-0.7, 0), (0.5, 0)]],
    [[(0.7, -1), (-0.7, -1), (-0.7, 1)], [(-0.7, 0), (0.5, 0)]],
    [[(-0.7, -1), (-0.7, 1)], [(0.7, -1), (0.7, 1)], [(-0.7, 0), (0.7, 0)]],
    [[(-0.7, -1), (-0.7, 1)], [(0.7, -1), (-0.7, 0.1), (0.7, 1)]],
    [[(-0.7, -1), (-0.7, 1), (0.7, 1)]],
    [[(-0.9, 1), (-0.9, -1), (0, 0.4), (0.9, -1), (0.9, 1)]],
    [[(-0.7, 1), (-0.7, -1), (0.7, 1), (0.7, -1)]],
    [[(-0.9, -1), (0.9, -1)], [(0, -1), (0, 1)]],
    [[(-0.8, -1), (0, 1), (0.8, -1)]],
    [[(-0.8, -1), (0.8, 1)], [(0.8, -1), (-0.8, 1)]],
    [[(-0.8, -1), (0, 0), (0.8, -1)], [(0, 0), (0, 1)]],
    [[(-0.8, -1), (0.8, -1), (-0.8, 1), (0.8, 1)]],
    [[(0.3, 1), (0.3, -1), (-0.8, 0.3), (0.8, 0.3)]],
    [[(-0.8, -1), (0.8, -1), (-0.2, 1)]],
)


def letter(rng: Random) -> Object:
    width = between(rng, 0.15, 0.5)
    return [stroke(points, width) for points in one_of(rng, _LETTERS)]


def curl(rng: Random) -> Object:
    """Return a thick curved line: a bacterium, a worm, a cable."""
    count = 24
    turns = np.cumsum(rng.standard_normal(count) * between(rng, 0.05, 0.3)) + between(rng, -1.5, 1.5) * np.linspace(
        0, 1.5, count
    )
    points = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1), axis=0)
    points -= (points.max(0) + points.min(0)) / 2
    points /= np.abs(points).max()
    return [stroke(points, between(rng, 0.12, 0.5))]


def blob(rng: Random) -> Object:
    return [Part(smooth_outline(rng, between(rng, 0.1, 0.45)))]


def rock(rng: Random) -> Object:
    """Return an irregular polygon with faces of other brightness."""
    count = int(rng.integers(6, 11))
    outline = radial(rng.uniform(0.65, 1, count))
    ridge = rng.uniform(-0.3, 0.3, 2)
    start = int(rng.integers(count))
    face = np.roll(outline, start, axis=0)[: count // 2 + 1]
    return [Part(outline), Part(np.concatenate([face, [ridge]]), 1)]


def burst(rng: Random) -> Object:
    """Return a round body with spikes: a virus, a burr, a sun."""
    spikes = int(rng.integers(7, 16))
    length, width = between(rng, 0.55, 0.75), between(rng, 0.06, 0.16)
    tips = radial(np.ones(spikes))
    knobs = chance(rng, 0.5)
    parts = [stroke([(0, 0), (x * 0.9, y * 0.9)], width, 1) for x, y in tips.tolist()]
    if knobs:
        parts += [disk(x * 0.9, y * 0.9, 0.1, 1) for x, y in tips.tolist()]
    return [*parts, disk(0, 0, length)]


def cluster_of_disks(rng: Random) -> Object:
    """Return a compact heap of equal disks: grapes, cocci, foam."""
    count, radius = int(rng.integers(3, 9)), between(rng, 0.25, 0.4)
    steps = rotated(radial(np.ones(count)) * between(rng, 0.5, 0.7), between(rng, 0, 6))
    return [disk(x, y, radius, i % 2) for i, (x, y) in enumerate([*steps.tolist(), (0, 0)])]


def spiral(rng: Random) -> Object:
    turns = between(rng, 1.5, 3)
    angles = np.linspace(0.5, turns * 2 * math.pi, 60)
    radii = angles / angles[-1]
    return [stroke(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1), between(rng, 0.1, 0.2))]


def zigzag(rng: Random) -> Object:
    count = int(rng.integers(4, 8))
    x = np.linspace(-1, 1, count)
    y = np.where(np.arange(count) % 2, 0.6, -0.6) * rng.uniform(0.6, 1, count)
    return [stroke(np.stack([x, y], axis=1), between(rng, 0.15, 0.35))]
