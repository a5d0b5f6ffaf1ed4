"""Objects of several parts that resemble what lives: people, animals, plants, cells."""

import math

import numpy as np

from conditional_detr.data.scenes.arrays import Random
from conditional_detr.data.scenes.choices import between, chance
from conditional_detr.data.scenes.parts import (
    Object,
    Part,
    arc,
    box,
    disk,
    polygon,
    smooth_outline,
    stroke,
)


def cell(rng: Random) -> Object:
    """Return a cell with a nucleus of one to four lobes, or a dent in the middle."""
    body = Part(smooth_outline(rng, between(rng, 0.02, 0.15)))
    if chance(rng, 0.35):
        return [body, disk(between(rng, -0.15, 0.15), between(rng, -0.15, 0.15), between(rng, 0.3, 0.5), 4)]
    lobes = int(rng.integers(1, 5))
    centers = rng.uniform(-0.35, 0.35, (lobes, 2)).tolist()
    return [body, *(Part(smooth_outline(rng, 0.12) * between(rng, 0.22, 0.5) + center, 1) for center in centers)]


def person(rng: Random) -> Object:
    """Return a standing, walking or waving person."""
    thick, step = between(rng, 0.3, 0.6), between(rng, 0.05, 0.6)
    left, right = rng.uniform(-0.7, 0.25, 2).tolist()
    hips, shoulders = 0.15, -0.55
    return [
        stroke([(-0.12, hips), (-0.1 - step / 2, 0.55), (-0.1 - step, 0.97)], thick * 0.55, 1),
        stroke([(0.12, hips), (0.12 + step / 2, 0.55), (0.1 + step, 0.97)], thick * 0.55, 1),
        polygon([(-thick, shoulders), (thick, shoulders), (thick * 0.7, hips + 0.1), (-thick * 0.7, hips + 0.1)]),
        stroke([(-thick, shoulders + 0.06), (-0.75, (left + shoulders) / 2 + 0.1), (-0.8, left)], thick * 0.35),
        stroke([(thick, shoulders + 0.06), (0.75, (right + shoulders) / 2 + 0.1), (0.8, right)], thick * 0.35),
        disk(0, -0.8, 0.3, 4, height=0.19),
    ]


def animal(rng: Random) -> Object:
    """Return a four-legged animal from the side, with a long or short neck, tail and legs."""
    neck, legs, thick = between(rng, 0.05, 0.5), between(rng, 0.35, 0.75), between(rng, 0.1, 0.22)
    belly = 0.98 - legs
    back = belly - between(rng, 0.45, 0.7)
    head_x, head_y = between(rng, 0.7, 0.85), back - neck
    middle = (belly + back) / 2
    steps = rng.uniform(-0.12, 0.12, 4).tolist()
    return [
        *(
            stroke([(x, middle), (x + step, 0.97)], thick, i % 2)
            for i, (x, step) in enumerate(zip((-0.55, -0.4, 0.35, 0.5), steps, strict=True))
        ),
        disk(0, middle, 0.7, height=(belly - back) / 2 + 0.05),
        stroke([(0.5, middle), (head_x, head_y)], thick * 1.8),
        disk(head_x + 0.08, head_y, 0.26, height=0.2, turn=between(rng, 0, 0.6)),
        polygon([(head_x - 0.05, head_y - 0.15), (head_x - 0.1, head_y - 0.4), (head_x + 0.1, head_y - 0.17)], 1),
        stroke([(-0.62, middle - 0.1), (-0.85, middle), (-0.95, middle + between(rng, -0.5, 0.4))], thick * 0.6),
    ]


def bird(rng: Random) -> Object:
    """Return a bird with spread or folded wings."""
    if chance(rng, 0.5):
        rise = between(rng, -0.9, 0.3)
        wing = [(-0.15, 0), (-0.55, rise - 0.1), (-1, rise + 0.3), (-0.5, 0.3), (-0.1, 0.35)]
        mirrored = [(-x, y) for x, y in wing]
        return [polygon(wing), polygon(mirrored), disk(0, 0.15, 0.17, 1, height=0.5)]
    return [
        stroke([(-0.05, 0.5), (-0.05, 0.97)], 0.07, 3),
        stroke([(0.12, 0.5), (0.15, 0.97)], 0.07, 3),
        disk(0, 0.1, 0.6, height=0.5, turn=-0.3),
        polygon([(-0.4, 0), (-1, 0.35), (-0.85, 0.55), (-0.2, 0.45)], 1),
        disk(0.5, -0.45, 0.3, height=0.32),
        polygon([(0.75, -0.55), (1, -0.4), (0.75, -0.35)], 2),
    ]


def fish(rng: Random) -> Object:
    body, fin = between(rng, 0.4, 0.9), between(rng, 0.3, 0.9)
    return [
        polygon([(-0.45, 0), (-1, -fin), (-0.8, 0), (-1, fin)], 1),
        polygon([(-0.2, -body * 0.7), (0.1, -1), (0.35, -body * 0.6)], 1),
        disk(0.2, 0, 0.8, height=body),
        disk(0.65, -body * 0.25, 0.09, 3),
    ]


def insect(rng: Random) -> Object:
    """Return an insect or spider from above."""
    legs, thin = int(rng.integers(3, 5)), between(rng, 0.05, 0.1)
    spread = np.linspace(-0.7, 0.7, legs).tolist()
    parts = [
        stroke([(0.1, 0), (side * 0.0 + x * 0.8, side * 0.55), (x * 1.3, side * 0.95)], thin, 3)
        for x in spread
        for side in (-1, 1)
    ]
    return [
        *parts,
        disk(-0.45, 0, 0.5, height=between(rng, 0.25, 0.45)),
        disk(0.2, 0, 0.28, height=0.25),
        disk(0.6, 0, 0.2, 1),
    ]


def tree(rng: Random) -> Object:
    trunk = box(-between(rng, 0.06, 0.15), 0, between(rng, 0.06, 0.15), 1, 3)
    if chance(rng, 0.4):
        layers = [(-1, -0.2, 0.55), (-0.6, 0.2, 0.8), (-0.2, 0.6, 1)]
        return [trunk, *(polygon([(-half, low), (0, top), (half, low)]) for top, low, half in layers)]
    crown = smooth_outline(rng, 0.25, 9) * (0.85, 0.6) + (0, -0.4)
    return [trunk, Part(crown), disk(between(rng, -0.3, 0.3), -0.5, 0.35, 1, height=0.25)]


def flower(rng: Random) -> Object:
    petals, size = int(rng.integers(4, 10)), between(rng, 0.22, 0.4)
    angles = np.arange(petals) * (2 * math.pi / petals)
    return [
        *(disk(0.6 * math.cos(a), 0.6 * math.sin(a), 0.42, height=size, turn=a) for a in angles.tolist()),
        disk(0, 0, between(rng, 0.2, 0.35), 1),
    ]


def leaf(rng: Random) -> Object:
    bulge, steps = between(rng, 0.4, 1), np.linspace(-1, 1, 14)
    edge = bulge * np.cos(steps * math.pi / 2) * (1 - 0.35 * steps)
    upper, lower = np.stack([steps, -edge], axis=1), np.stack([steps, edge], axis=1)[::-1]
    veins = [stroke([(x, 0), (x + 0.25, side * bulge * 0.55)], 0.04, 1) for x in (-0.5, -0.1, 0.3) for side in (-1, 1)]
    return [Part(np.concatenate([upper, lower])), stroke([(-1, 0), (0.95, 0)], 0.06, 1), *veins]


def fruit(rng: Random) -> Object:
    body = smooth_outline(rng, 0.06, 3) * (0.95, 0.8) + (0, 0.15)
    stem = between(rng, -0.3, 0.3)
    return [
        stroke([(0, -0.4), (stem, -0.95)], 0.1, 3),
        Part(body),
        disk(stem + 0.3, -0.8, 0.3, 1, height=0.12, turn=-0.4),
    ]


def face(rng: Random) -> Object:
    """Return a head from the front: of a person, or of an animal with ears."""
    wide = between(rng, 0.7, 0.95)
    ears = (
        [polygon([(s * 0.85, -1), (s * 0.2, -0.75), (s * 0.8, -0.2)], 1) for s in (-1, 1)] if chance(rng, 0.5) else []
    )
    eyes = [disk(s * 0.33, -0.1, 0.12, 3, height=between(rng, 0.07, 0.13)) for s in (-1, 1)]
    mouth = stroke(arc(0, 0.3, 0.35, 0.4, math.pi - 0.4, height=0.2, count=7), 0.08, 3)
    return [*ears, disk(0, 0.05, wide, height=0.95), *eyes, disk(0, 0.2, 0.12, 2), mouth]
