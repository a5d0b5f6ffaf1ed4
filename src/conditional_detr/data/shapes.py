"""Generate the data set "shapes": filled shapes on color noise, which a small model learns in minutes on a CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from conditional_detr.data.generated import Drawing, Recipe, write_generated
from conditional_detr.record import Categories

if TYPE_CHECKING:
    from conditional_detr.data.headers import OnDone

SIDE = 96  # pixels
SHAPES = Categories(ids=(1, 2, 3), names=("rectangle", "ellipse", "triangle"))
MAX_OBJECTS = 4
MAX_OVERLAP = 0.1  # of the smaller box
MIN_CONTRAST = 60  # minimum difference of 0..255 between shape and mean background, in at least one channel


def draw_shapes(rng: np.random.Generator) -> Drawing:
    """Draw an image of 96 x 96 pixels with one to four shapes. Each shape fills its box."""
    mean = rng.integers(40, 216, size=3)
    noise = np.clip(mean + rng.integers(-30, 31, size=(6, 6, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    boxes: list[tuple[int, int, int, int]] = []
    category_ids: list[int] = []
    for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        box = _free_box(rng, boxes)
        if box is None:
            continue
        x, y, width, height = box
        kind = int(rng.integers(len(SHAPES)))
        color = _contrasting_color(rng, mean)
        last = (x + width - 1, y + height - 1)  # Pillow includes the last pixel
        if SHAPES.names[kind] == "rectangle":
            pen.rectangle(((x, y), last), fill=color)
        elif SHAPES.names[kind] == "ellipse":
            pen.ellipse(((x, y), last), fill=color)
        else:
            pen.polygon([(x, last[1]), (x + (width - 1) / 2, y), last], fill=color)
        boxes.append(box)
        category_ids.append(SHAPES.ids[kind])
    return Drawing(image, boxes, category_ids)


def _free_box(rng: np.random.Generator, taken: list[tuple[int, int, int, int]]) -> tuple[int, int, int, int] | None:
    for _ in range(50):
        width = round(rng.uniform(0.2, 0.5) * SIDE)
        height = round(width * rng.uniform(0.7, 1.4))
        if not 0.2 * SIDE <= height <= 0.5 * SIDE:
            continue
        x, y = int(rng.integers(0, SIDE - width + 1)), int(rng.integers(0, SIDE - height + 1))
        if all(_overlap((x, y, width, height), other) <= MAX_OVERLAP for other in taken):
            return x, y, width, height
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])


def _contrasting_color(rng: np.random.Generator, mean: np.ndarray) -> tuple[int, int, int]:
    while True:
        color = rng.integers(0, 256, size=3)
        if np.abs(color - mean).max() > MIN_CONTRAST:
            return int(color[0]), int(color[1]), int(color[2])


def write_shapes(
    root: Path, images: Mapping[str, int], seed: int, *, on_image: "OnDone | None" = None
) -> dict[str, int]:
    """Write the data set as ``write_generated`` does. images: number of images per split. Return the numbers of objects."""
    return write_generated(root, Recipe("shapes", draw_shapes, SHAPES), images, seed, on_image=on_image)
