"""Generate the data set "crowds" for a starter: up to 30 overlapping figures per image, often of one kind and color.

Shapes never overlap, and there are few of them. Cells, cars in a jam and fruit do. Usage: crowds.py OUT [--images N] [--val-images N]
"""

import argparse
import math
from pathlib import Path

import numpy as np

from conditional_detr.data.generated import Drawing, Recipe, write_generated
from conditional_detr.data.scenes.canvas import Canvas, Pose, Sprite, render
from conditional_detr.data.scenes.choices import between, chance, log_uniform, one_of
from conditional_detr.data.scenes.figures import ellipse, rectangle, triangle
from conditional_detr.data.scenes.light import photographed
from conditional_detr.data.scenes.parts import Object, Part, smooth_outline
from conditional_detr.data.scenes.textures import brightened, noise
from conditional_detr.record import Categories

SIDE = 256
MOST = 30
SMALLEST, LARGEST = 0.05, 0.7  # of the side
CONTRAST = 45  # of 0..255


def blob(rng: np.random.Generator) -> Object:
    return [Part(smooth_outline(rng, 0.15))]


def draw_crowd(rng: np.random.Generator) -> Drawing:
    """Draw an image of 256 x 256 pixels. At least one figure is visible."""
    while True:
        canvas = _painted(rng)
        boxes = [box for box in canvas.boxes() if box is not None]
        if boxes:
            return Drawing(photographed(rng, canvas.pixels), boxes, [1] * len(boxes))


def _painted(rng: np.random.Generator) -> Canvas:
    mean = rng.uniform(20, 235, 3).astype(np.float32)
    uneven = noise(rng, SIDE, SIDE, log_uniform(rng, 3, 80))[..., None] - np.float32(0.5)
    canvas = Canvas(np.clip(mean + uneven * np.float32(between(rng, 10, 80)), 0, 255))
    count = round(log_uniform(rng, 1.6, MOST + 0.4))
    middle = log_uniform(rng, SMALLEST, min(LARGEST, 1.8 / math.sqrt(count)))
    spread = between(rng, 0.05, 0.7)
    alike = chance(rng, 0.6)
    color, kind, rim = _contrasting(rng, mean), one_of(rng, _FIGURES), between(rng, -60, 60)
    opacity = between(rng, 0.6, 0.95) if chance(rng, 0.3) else 1
    for _ in range(count):
        if not alike:
            color, kind = _contrasting(rng, mean), one_of(rng, _FIGURES)
        size = min(max(middle * math.exp(spread * rng.standard_normal()), SMALLEST), LARGEST) * SIDE
        pose = Pose(size, math.exp(between(rng, -0.5, 0.5)), between(rng, 0, math.pi))
        shade = brightened(color, between(rng, -15, 15))
        sprite = render(kind(rng), pose, np.stack([shade]))
        sprite = _rimmed(sprite, rim)
        height, width = sprite.coverage.shape
        x, y = rng.uniform(0, SIDE, 2).tolist()
        canvas.paint(sprite, round(x - width / 2), round(y - height / 2), opacity=opacity)
    return canvas


def _rimmed(sprite: Sprite, amount: float) -> Sprite:
    """Brighten or darken a figure from its center to its edge, so that figures of one color can be told apart."""
    height, width = sprite.coverage.shape
    rows, columns = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    edge = np.clip(np.hypot(rows, columns), 0, 1).astype(np.float32) ** 3
    return Sprite(np.clip(sprite.colors + (edge * np.float32(amount))[..., None], 0, 255), sprite.coverage)


def _contrasting(rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
    while True:
        color = rng.uniform(0, 255, 3).astype(np.float32)
        if np.abs(color - mean).max() > CONTRAST:
            return color


_FIGURES = (ellipse, ellipse, blob, rectangle, triangle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--val-images", type=int, default=300)
    parser.add_argument("--workers", type=int, default=0)
    chosen = parser.parse_args()
    recipe = Recipe("crowds", draw_crowd, Categories(ids=(1,), names=("object",)), "JPEG")
    images = {"train": chosen.images, "val": chosen.val_images}
    print(write_generated(chosen.out, recipe, images, seed=0, workers=chosen.workers))


if __name__ == "__main__":
    main()
