"""Objects of several parts that resemble things in photographs: vehicles, goods, buildings, furniture."""

import math
from itertools import pairwise

import numpy as np

from conditional_detr.data.scenes.arrays import Number, Random
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
    stroke,
)


def car(rng: Random) -> Object:
    """Return a car from the side."""
    roof, nose = between(rng, -1, -0.7), between(rng, 0.1, 0.3)
    front, back = between(rng, 0.1, 0.5), between(rng, -0.95, -0.5)
    wheel = between(rng, 0.17, 0.24)
    body = [(-1, 0.05), (back - 0.1, -0.1), (back + 0.15, roof), (front, roof), (front + 0.35, -0.1), (1, nose)]
    glass = [(back + 0.1, -0.15), (back + 0.25, roof + 0.15), (front - 0.05, roof + 0.15), (front + 0.2, -0.15)]
    pillar = (back + front) / 2
    return [
        polygon([*body, (0.98, 0.65), (-0.98, 0.65)]),
        polygon(glass, 3),
        box(pillar - 0.04, roof, pillar + 0.04, 0),
        *(part for x in (-0.55, 0.55) for part in _wheel(x, 0.65, wheel, 0.36)),
    ]


def car_from_front(rng: Random) -> Object:
    """Return a car from the front or from behind."""
    top = between(rng, 0.55, 0.8)
    shoulder = between(rng, -0.25, 0)
    return [
        box(-0.9, 0.6, -0.6, 1, 3),
        box(0.6, 0.6, 0.9, 1, 3),
        polygon([(-top, -0.95), (top, -0.95), (0.95, shoulder), (1, 0.8), (-1, 0.8), (-0.95, shoulder)]),
        polygon([(0.1 - top, -0.85), (top - 0.1, -0.85), (0.78, shoulder), (-0.78, shoulder)], 3),
        *(disk(x, shoulder + 0.3, 0.14, 4, height=0.1) for x in (-0.75, 0.75)),
        box(-0.45, 0.4, 0.45, 0.6, 2),
    ]


def car_from_above(rng: Random) -> Object:
    """Return a car from above, heading right."""
    hood = between(rng, 0.25, 0.45)
    return [
        Part(np.concatenate([arc(0.75, 0, 0.25, -1.5, 1.5, height=0.9, count=8), [(-0.95, 0.9), (-0.95, -0.9)]])),
        polygon([(hood, -0.7), (hood + 0.2, -0.8), (hood + 0.2, 0.8), (hood, 0.7)], 3),
        polygon([(-0.6, -0.7), (-0.75, -0.75), (-0.75, 0.75), (-0.6, 0.7)], 3),
    ]


def truck(rng: Random) -> Object:
    """Return a truck or van from the side."""
    cabin, hood = between(rng, 0.35, 0.7), between(rng, -0.7, -0.2)
    wheel = between(rng, 0.14, 0.2)
    places = (-0.7, 0.7) if chance(rng, 0.5) else (-0.75, -0.4, 0.7)
    return [
        box(-1, -1, cabin - 0.05, 0.65, int(rng.integers(3))),
        polygon([(cabin, hood), (0.85, hood), (1, 0.05), (1, 0.65), (cabin - 0.1, 0.65)]),
        polygon([(cabin + 0.06, hood + 0.1), (0.8, hood + 0.1), (0.92, 0.05), (cabin + 0.06, 0.05)], 3),
        *(part for x in places for part in _wheel(x, 0.68, wheel, 0.32)),
    ]


def bus(rng: Random) -> Object:
    """Return a bus or railway car from the side, with a row of windows."""
    windows, wheel = int(rng.integers(3, 8)), between(rng, 0.1, 0.14)
    edges = np.linspace(-0.93, 0.93, windows + 1).tolist()
    return [
        box(-1, -1, 1, 0.7),
        *(box(left + 0.04, -0.75, right - 0.04, -0.1, 3) for left, right in pairwise(edges)),
        box(-1, 0.1, 1, 0.25, 1),
        *(part for x in (-0.6, 0.65) for part in _wheel(x, 0.7, wheel, 0.3)),
    ]


def _wheel(x: Number, y: Number, radius: Number, height: Number) -> Object:
    return [disk(x, y, radius, 3, height=height), disk(x, y, radius * 0.5, 4, height=height * 0.5)]


def bicycle(rng: Random) -> Object:
    """Return a two-wheeler, some with a rider."""
    thin, wheel = between(rng, 0.06, 0.12), between(rng, 0.36, 0.42)
    frame = [(-0.58, 0.55), (-0.25, 0.0), (0.4, 0.0), (0.58, 0.55)]
    parts = [
        *(stroke(arc(x, 0.55, wheel, 0, 6.3, height=0.42, count=20), thin, 3) for x in (-0.58, 0.58)),
        stroke(frame, thin * 1.4),
        stroke([(-0.25, 0), (0, 0.55), (0.4, 0)], thin * 1.4),
        stroke([(0.4, 0), (0.35, -0.25), (0.55, -0.3)], thin, 3),
        stroke([(-0.4, -0.15), (-0.1, -0.15)], thin * 1.6, 3),
    ]
    if chance(rng, 0.5):
        lean = between(rng, -0.1, 0.25)
        parts += [
            stroke([(0, 0.55), (0.2, 0.1), (-0.25, -0.15)], 0.2, 1),
            stroke([(-0.25, -0.15), (lean, -0.7)], 0.36, 2),
            stroke([(lean, -0.6), (0.45, -0.28)], 0.14, 2),
            disk(lean + 0.08, -0.95, 0.16, 4, height=0.2),
        ]
    return parts


def bottle(rng: Random) -> Object:
    neck, shoulder = between(rng, 0.2, 0.5), between(rng, -0.5, 0.0)
    label = between(rng, 0.1, 0.35)
    side = [(neck, -0.8), (neck, shoulder - 0.2), (1, shoulder), (1, 1)]
    return [
        polygon([*side, *((-x, y) for x, y in reversed(side))]),
        box(-neck, -1, neck, -0.8, 2),
        box(-1, label, 1, label + 0.45, 1),
    ]


def mug(rng: Random) -> Object:
    bottom = between(rng, 0.4, 0.7)
    return [
        stroke(arc(0.6, 0.05, 0.35, -1.7, 1.7, height=0.5), 0.14),
        polygon([(-1, -0.85), (0.7, -0.85), (bottom, 1), (-bottom - 0.3, 1)]),
        disk(-0.15, -0.85, 0.85, 1, height=0.15),
    ]


def can(rng: Random) -> Object:
    """Return a can, jar or barrel: a cylinder."""
    flat = between(rng, 0.08, 0.25)
    band = between(rng, -0.5, 0.2)
    return [
        Part(np.concatenate([[(-1, -1 + flat), (1, -1 + flat)], arc(0, 1 - flat, 1, 0, math.pi, height=flat)])),
        polygon([(-1, band), (1, band), (1, band + 0.5), (-1, band + 0.5)], 1),
        disk(0, -1 + flat, 1, 2, height=flat),
    ]


def carton(rng: Random) -> Object:
    """Return a box of which three sides are seen."""
    x, y = between(rng, -0.4, 0.6), between(rng, -0.75, -0.2)
    return [
        polygon([(-1, y), (x, y), (x, 1), (-1, 1)]),
        polygon([(-1, y), (-1 + (1 - x), -1), (1, -1), (x, y)], 1),
        polygon([(x, y), (1, -1), (1, 1 - (y + 1)), (x, 1)], 2),
    ]


def house(rng: Random) -> Object:
    eaves = between(rng, -0.5, 0)
    windows = [(x, eaves + 0.2) for x in (-0.6, 0.3)]
    door = between(rng, -0.25, 0.05)
    return [
        box(-0.9, eaves, 0.9, 1),
        polygon([(-1, eaves), (between(rng, -0.6, 0.6), -1), (1, eaves)], 1),
        *(box(x, y, x + 0.3, y + 0.3, 3) for x, y in windows),
        box(door, 0.5, door + 0.3, 1, 2),
    ]


def plane(rng: Random) -> Object:
    """Return an aircraft from above, heading right."""
    sweep, thick = between(rng, 0, 0.5), between(rng, 0.09, 0.16)
    wing = [(0.3, 0), (0.05 - sweep, 1), (-0.15 - sweep, 1), (-0.15, 0)]
    tail = [(-0.7, 0), (-0.95, 0.4), (-1, 0.4), (-0.95, 0)]
    parts = [polygon([(x, side * y) for x, y in points], 1) for points in (wing, tail) for side in (-1, 1)]
    return [*parts, disk(0, 0, 1, height=thick)]


def boat(rng: Random) -> Object:
    hull = polygon([(-1, 0.45), (1, 0.45), (0.65, 1), (-0.75, 1)])
    if chance(rng, 0.5):
        return [hull, stroke([(0, 0.45), (0, -1)], 0.07, 3), polygon([(0.07, -0.95), (0.75, 0.3), (0.07, 0.3)], 1)]
    return [hull, box(-0.6, -0.1, 0.2, 0.45, 1), box(-0.3, -0.9, -0.05, -0.1, 2)]


def chair(rng: Random) -> Object:
    seat, thin = between(rng, -0.05, 0.3), between(rng, 0.12, 0.25)
    back = polygon([(-0.95, -1), (-0.65, -1), (-0.55, seat), (-0.9, seat)])
    legs = [stroke([(x, seat), (x * 1.05, 0.95)], thin, 3) for x in (-0.8, -0.35, 0.35, 0.8)]
    return [*legs, back, box(-0.95, seat - 0.1, 0.95, seat + 0.15, 1)]


def lamp(rng: Random) -> Object:
    width = between(rng, 0.4, 0.7)
    return [
        stroke([(0, -0.2), (0, 0.9)], 0.1, 3),
        box(-width, 0.85, width, 1, 3),
        polygon([(-0.4, -1), (0.4, -1), (0.95, 0), (-0.95, 0)]),
    ]


def sign(rng: Random) -> Object:
    """Return a traffic sign or signal on a post."""
    post = stroke([(0, 0), (0, 1)], between(rng, 0.08, 0.2), 3)
    if chance(rng, 0.3):
        lights = [disk(0, y, 0.28, 1 + i, height=0.15) for i, y in enumerate((-0.75, -0.35, 0.05))]
        return [post, box(-0.5, -1, 0.5, 0.3, 3), *lights]
    sides = int(rng.integers(3, 9))
    plate = radial(np.ones(20 if sides == 7 else sides), -math.pi / 2)
    return [post, Part(plate * (1, 0.55) + (0, -0.4), 4), Part(plate * (0.75, 0.41) + (0, -0.4))]


def tool(rng: Random) -> Object:
    """Return a wrench, hammer, spoon or key: a handle with a head."""
    handle = stroke([(-1, 0), (0.4, 0)], between(rng, 0.12, 0.3))
    heads: list[Object] = [
        [disk(0.6, 0, 0.4), disk(0.85, 0, 0.22, HOLE)],
        [box(0.35, -0.75, 0.75, 0.75, 1)],
        [disk(0.6, 0, 0.42, 1, height=0.3)],
        [disk(0.6, 0, 0.4), disk(0.6, 0, 0.2, HOLE), stroke([(-0.8, 0), (-0.8, 0.3)], 0.15)],
    ]
    return [handle, *one_of(rng, heads)]


def screen(rng: Random) -> Object:
    """Return a monitor, telephone or book: a frame with lines of content."""
    border = between(rng, 0.05, 0.2)
    inner = 1 - border
    lines = np.linspace(-0.6, 0.6, int(rng.integers(2, 7))).tolist()
    content = [stroke([(-inner * 0.8, y), (between(rng, -0.2, 0.75), y)], 0.1, 3) for y in lines]
    return [box(-1, -1, 1, 1), box(-inner, -inner, inner, inner, 4), *content]


def furniture(rng: Random) -> Object:
    """Return a shelf, cupboard or window: a rectangle with rows and columns."""
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    x, y = np.linspace(-1, 1, columns + 1).tolist(), np.linspace(-1, 1, rows + 1).tolist()
    gap = between(rng, 0.05, 0.12)
    panes = [
        box(x[i] + gap, y[j] + gap, x[i + 1] - gap, y[j + 1] - gap, 1 + (i + j) % 2)
        for i in range(columns)
        for j in range(rows)
    ]
    return [box(-1, -1, 1, 1), *panes]


def ball(rng: Random) -> Object:
    """Return a ball with a seam, stripe or patches."""
    marks: list[Object] = [
        [stroke(arc(1, 0, 1, 2, 4.3), 0.1, 1), stroke(arc(-1, 0, 1, -1.1, 1.1), 0.1, 1)],
        [
            Part(
                np.concatenate(
                    [arc(0, 0, 1, -0.35, 0.35, count=6), arc(0, 0, 1, math.pi - 0.35, math.pi + 0.35, count=6)]
                ),
                1,
            )
        ],
        [disk(0, 0, 0.3, 3), *(disk(px, py, 0.2, 3) for px, py in radial(np.full(5, 0.72)).tolist())],
    ]
    return [disk(0, 0, 1), *one_of(rng, marks)]
