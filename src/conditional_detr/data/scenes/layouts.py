"""Where objects are: a layout returns the background, and the objects in the order in which they are painted."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from conditional_detr.data.scenes.arrays import Floats, Number, Random
from conditional_detr.data.scenes.backgrounds import ground, random_background, shelves
from conditional_detr.data.scenes.canvas import Pose
from conditional_detr.data.scenes.choices import between, chance, log_uniform, one_of, weighted
from conditional_detr.data.scenes.kinds import KINDS
from conditional_detr.data.scenes.parts import Object
from conditional_detr.data.scenes.textures import Palette

MOST = 25  # objects in a layout
SMALLEST, LARGEST = 0.025, 0.7  # longer side of an object, as a part of the shorter side of the image


class Model(NamedTuple):
    """An object apart from where it is. look: objects of equal look have equal colors and texture; None draws a new one."""

    kind: int
    parts: Object
    aspect: float
    look: int | None = None


class Placed(NamedTuple):
    """An object in a picture. x, y: its center, in pixels."""

    model: Model
    pose: Pose
    x: float
    y: float


class Layout(NamedTuple):
    """A background ``[h, w, 3]`` and objects on it, the farthest first. shadows: whether they may cast shadows on it."""

    background: Floats
    objects: list[Placed]
    shadows: bool = True


def random_model(rng: Random, *, upright: bool | None = None, look: int | None = None) -> Model:
    """Return a random object. upright: take kinds that stand upright only, or none of those; None takes all."""
    choice = [i for i, kind in enumerate(KINDS) if upright is None or kind.upright == upright]
    kind = one_of(rng, choice)
    low, high = KINDS[kind].aspects
    return Model(kind, KINDS[kind].draw(rng), log_uniform(rng, low, high), look)


def posed(rng: Random, model: Model, longer: Number, angle: Number | None = None) -> Pose:
    """Return a random pose. angle: None turns most objects that need not stand upright in any direction."""
    if angle is None:
        wide = 0.15 if KINDS[model.kind].upright or chance(rng, 0.3) else math.pi
        angle = between(rng, -wide, wide)
    taper = between(rng, 0, 0.35) if chance(rng, 0.2) else 0
    return Pose(max(longer, 4), model.aspect * math.exp(between(rng, -0.1, 0.1)), angle, taper, chance(rng, 0.5))


# --- layouts ---


def scattered(rng: Random, palette: Palette, height: int, width: int) -> Layout:
    """Place different objects anywhere, of any size or about one size."""
    side = min(height, width)
    count = round(log_uniform(rng, 1, MOST + 0.4))
    largest = min(LARGEST, 1.6 / math.sqrt(count))
    middle = log_uniform(rng, 2 * SMALLEST, largest)
    spread = between(rng, 0.1, 1.5)
    free = _Free(rng, height, width)
    few = [random_model(rng) for _ in range(int(rng.integers(1, 4)))] if chance(rng, 0.3) else []
    for _ in range(count):
        model = one_of(rng, few) if few else random_model(rng)
        size = min(max(middle * math.exp(spread * rng.standard_normal()), SMALLEST), largest) * side
        free.place(model, posed(rng, model, size))
    return Layout(random_background(rng, palette, height, width), free.objects)


def alone(rng: Random, palette: Palette, height: int, width: int) -> Layout:
    """Place one to three large objects, sometimes with small ones."""
    side = min(height, width)
    free = _Free(rng, height, width)
    for _ in range(int(rng.integers(1, 4))):
        model = random_model(rng)
        free.place(model, posed(rng, model, between(rng, 0.3, LARGEST) * side))
    for _ in range(int(rng.integers(0, 6)) if chance(rng, 0.4) else 0):
        model = random_model(rng)
        free.place(model, posed(rng, model, log_uniform(rng, SMALLEST, 0.2) * side))
    return Layout(random_background(rng, palette, height, width), free.objects)


def crowded(rng: Random, palette: Palette, height: int, width: int) -> Layout:
    """Place many equal objects, close to each other in one or two groups or all over, and a few others."""
    side = min(height, width)
    free = _Free(rng, height, width)
    for group in range(1 if chance(rng, 0.6) else 2):
        model = random_model(rng, look=group)
        size = between(rng, 1.5 * SMALLEST, 0.3) * side
        count = int(rng.integers(6, MOST - 5)) // (group + 1)
        radius = size * math.sqrt(count) * between(rng, 0.4, 1.2) if chance(rng, 0.6) else None
        center = (between(rng, 0.2, 0.8) * width, between(rng, 0.2, 0.8) * height)
        variation = between(rng, 0, 0.25)
        angle = between(rng, -0.2, 0.2) if chance(rng, 0.4) else None
        other = chance(rng, 0.5)  # each has its own outline
        for _ in range(count):
            parts = KINDS[model.kind].draw(rng) if other else model.parts
            each = size * math.exp(variation * rng.standard_normal())
            free.place(model._replace(parts=parts), posed(rng, model, each, angle), center, radius)
    for _ in range(int(rng.integers(0, 4))):
        model = random_model(rng)
        free.place(model, posed(rng, model, log_uniform(rng, SMALLEST, 0.4) * side))
    return Layout(random_background(rng, palette, height, width), free.objects)


def in_depth(rng: Random, palette: Palette, height: int, width: int) -> Layout:
    """Stand objects on a plane that reaches to a horizon, so that distant ones are small and higher up."""
    side = min(height, width)
    horizon = int(height * between(rng, 0, 0.6))
    nearest = between(rng, 0.2, LARGEST) * side  # size of an object at the lower edge
    count = round(log_uniform(rng, 2, MOST))
    models = [random_model(rng, upright=True if chance(rng, 0.8) else None) for _ in range(int(rng.integers(1, 6)))]
    free = _Free(rng, height, width)
    depths = np.sort(rng.uniform(0.05, 1.1, count) ** between(rng, 0.7, 2)).tolist()
    for depth in depths:
        model = one_of(rng, models)
        size = nearest * (0.06 + depth) * between(rng, 0.8, 1.2)
        pose = posed(rng, model, max(size, SMALLEST * side), between(rng, -0.05, 0.05))
        feet = horizon + depth * (height - horizon)
        tall = pose.longer * min(1, 1 / pose.aspect)
        free.place(model, pose, (between(rng, 0, 1) * width, feet - tall / 2), 0)
    objects = sorted(free.objects, key=lambda each: each.y + each.pose.longer * min(1, 1 / each.pose.aspect) / 2)
    return Layout(ground(rng, palette, height, width, horizon), objects)


def in_rows(rng: Random, palette: Palette, height: int, width: int) -> Layout:
    """Stand objects side by side on shelves."""
    rows = int(rng.integers(1, 4))
    edges = [round(height * (row + between(rng, 0.85, 0.95)) / rows) for row in range(rows)]
    objects: list[Placed] = []
    for row, edge in enumerate(edges):
        tallest = height / rows * between(rng, 0.35, 0.75)
        model = random_model(rng, upright=chance(rng, 0.5), look=row)
        same, gap = chance(rng, 0.5), between(rng, 0, 0.6)
        x = between(rng, 0, 0.3) * width
        while x < width and len(objects) < MOST:
            if not same:
                model = random_model(rng, upright=chance(rng, 0.5))
            tall = tallest * (1 if same else between(rng, 0.6, 1))
            longer = min(tall * max(1, model.aspect), LARGEST * min(height, width))
            pose = posed(rng, model, longer, between(rng, -0.03, 0.03))
            wide, tall = longer * min(1, pose.aspect), longer * min(1, 1 / pose.aspect)
            objects.append(Placed(model, pose, x + wide / 2, edge - tall / 2))
            x += wide * (1 + gap * between(rng, 0.2, 1.5)) + 2
    return Layout(shelves(rng, palette, height, width, edges), objects, shadows=False)


Arrange = Callable[[Random, Palette, int, int], Layout]
_LAYOUTS: tuple[tuple[Arrange, float], ...] = (
    (scattered, 0.33),
    (alone, 0.12),
    (crowded, 0.22),
    (in_depth, 0.23),
    (in_rows, 0.1),
)


def random_layout(rng: Random, palette: Palette, height: int, width: int) -> Layout:
    """Return a layout with at least one object."""
    layout = weighted(rng, _LAYOUTS)(rng, palette, height, width)
    return layout if layout.objects else alone(rng, palette, height, width)


class _Free:
    """Find places for objects that hide others only partly."""

    def __init__(self, rng: Random, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.overlap = between(rng, 0.3, 0.65) if chance(rng, 0.3) else between(rng, 0, 0.2)
        self.objects: list[Placed] = []
        self._boxes: list[tuple[float, float, float, float]] = []

    def place(
        self, model: Model, pose: Pose, near: tuple[float, float] | None = None, radius: Number | None = None
    ) -> None:
        """Add an object at a random place, or within ``radius`` of a point, if there is room. Radius 0 keeps the row."""
        cos, sin = abs(math.cos(pose.angle)), abs(math.sin(pose.angle))
        wide, tall = pose.longer * min(1, pose.aspect), pose.longer * min(1, 1 / pose.aspect)
        half_wide, half_tall = (wide * cos + tall * sin) / 2, (wide * sin + tall * cos) / 2
        for _ in range(8):
            x, y = self._point(near, radius, half_wide, half_tall)
            box = (x - half_wide, y - half_tall, x + half_wide, y + half_tall)
            if all(_overlap(box, other) <= self.overlap for other in self._boxes):
                self.objects.append(Placed(model, pose, x, y))
                self._boxes.append(box)
                return

    def _point(
        self, near: tuple[float, float] | None, radius: Number | None, half_wide: Number, half_tall: Number
    ) -> tuple[float, float]:
        rng = self.rng
        if near is not None and radius == 0:
            return between(rng, 0, self.width), near[1]
        if near is None or radius is None:
            out = 0.5 if chance(rng, 0.15) else 0  # a few are cut by the edges
            x = between(
                rng, min(half_wide * (1 - out), self.width / 2), max(self.width - half_wide * (1 - out), self.width / 2)
            )
            y = between(
                rng,
                min(half_tall * (1 - out), self.height / 2),
                max(self.height - half_tall * (1 - out), self.height / 2),
            )
            return x, y
        angle, distance = between(rng, 0, 2 * math.pi), radius * math.sqrt(rng.random())
        return near[0] + distance * math.cos(angle), near[1] + distance * math.sin(angle)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Return how much of the smaller box the other covers."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
