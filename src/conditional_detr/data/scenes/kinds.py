"""The categories of objects: how each is drawn, in which proportions, and whether it stands upright."""

from collections.abc import Callable
from typing import NamedTuple

from conditional_detr.data.scenes import figures, living, things
from conditional_detr.data.scenes.arrays import Random
from conditional_detr.data.scenes.parts import Object
from conditional_detr.record import Categories


class Kind(NamedTuple):
    """A category. aspects: smallest and largest width / height before turning. upright: never turned far."""

    draw: Callable[[Random], Object]
    aspects: tuple[float, float] = (0.6, 1.7)
    upright: bool = False

    @property
    def name(self) -> str:
        return self.draw.__name__.replace("_", " ")


KINDS = (
    Kind(figures.rectangle, (0.25, 4)),
    Kind(figures.triangle, (0.4, 2.5)),
    Kind(figures.trapezoid, (0.4, 3)),
    Kind(figures.regular_polygon, (0.7, 1.4)),
    Kind(figures.star, (0.7, 1.4)),
    Kind(figures.ellipse, (0.25, 4)),
    Kind(figures.ring, (0.5, 2)),
    Kind(figures.frame, (0.4, 2.5)),
    Kind(figures.crescent, (0.5, 1.2)),
    Kind(figures.sector, (0.7, 1.4)),
    Kind(figures.cross, (0.4, 2)),
    Kind(figures.arrow, (0.8, 4)),
    Kind(figures.heart, (0.7, 1.4)),
    Kind(figures.drop, (0.4, 1)),
    Kind(figures.gear, (0.8, 1.2)),
    Kind(figures.letter, (0.5, 1.3)),
    Kind(figures.curl),
    Kind(figures.blob, (0.4, 2.5)),
    Kind(figures.rock),
    Kind(figures.burst, (0.8, 1.2)),
    Kind(figures.cluster_of_disks, (0.7, 1.4)),
    Kind(figures.spiral, (0.6, 1.6)),
    Kind(figures.zigzag, (1.2, 4)),
    Kind(living.cell, (0.7, 1.4)),
    Kind(things.car, (1.9, 3.2), upright=True),
    Kind(things.car_from_front, (0.9, 1.4), upright=True),
    Kind(things.car_from_above, (1.7, 2.6)),
    Kind(things.truck, (1.4, 3), upright=True),
    Kind(things.bus, (1.8, 4), upright=True),
    Kind(things.bicycle, (0.8, 1.7), upright=True),
    Kind(living.person, (0.3, 0.65), upright=True),
    Kind(living.animal, (1, 2), upright=True),
    Kind(living.bird, (0.8, 2)),
    Kind(living.fish, (1.2, 3)),
    Kind(living.insect, (0.9, 1.7)),
    Kind(things.bottle, (0.25, 0.5), upright=True),
    Kind(things.mug, (0.8, 1.3), upright=True),
    Kind(things.can, (0.45, 1.2), upright=True),
    Kind(things.carton, (0.6, 1.6), upright=True),
    Kind(things.house, (0.7, 1.5), upright=True),
    Kind(living.tree, (0.45, 1.1), upright=True),
    Kind(living.flower, (0.8, 1.2)),
    Kind(living.leaf, (1.2, 3)),
    Kind(things.plane, (0.8, 1.4)),
    Kind(things.boat, (0.9, 2.5), upright=True),
    Kind(things.chair, (0.5, 1), upright=True),
    Kind(things.lamp, (0.4, 0.9), upright=True),
    Kind(things.sign, (0.25, 0.6), upright=True),
    Kind(living.fruit, (0.8, 1.2)),
    Kind(living.face, (0.7, 1.1), upright=True),
    Kind(things.tool, (2, 4)),
    Kind(things.screen, (0.5, 2)),
    Kind(things.furniture, (0.4, 2)),
    Kind(things.ball, (0.95, 1.05)),
)
SCENES = Categories(ids=tuple(range(1, len(KINDS) + 1)), names=tuple(kind.name for kind in KINDS))
