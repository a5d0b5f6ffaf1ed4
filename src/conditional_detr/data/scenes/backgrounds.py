"""Backgrounds: a float32 picture ``[h, w, 3]`` of 0..255."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from conditional_detr.data.scenes.arrays import Floats, Random
from conditional_detr.data.scenes.choices import between, chance, log_uniform, weighted
from conditional_detr.data.scenes.parts import smooth_outline
from conditional_detr.data.scenes.textures import (
    Palette,
    brightened,
    fractal,
    gradient,
    mixed,
    noise,
    random_pattern,
    speckle,
)


def plain(rng: Random, palette: Palette, height: int, width: int) -> Floats:
    color = palette(rng)
    other = brightened(color, between(rng, -60, 60))
    return mixed(gradient(rng, height, width), color, other)


def patterned(rng: Random, palette: Palette, height: int, width: int) -> Floats:
    """Return a pattern of two colors, with fine structure."""
    color = palette(rng)
    other = color + np.float32(between(rng, 0.1, 0.7)) * (palette(rng) - color)
    picture = mixed(random_pattern(rng)(rng, height, width), color, other)
    return picture + fine(rng, height, width)


def clouded(rng: Random, palette: Palette, height: int, width: int) -> Floats:
    """Return three colors, mixed by noise of several scales."""
    first, second, third = palette(rng), palette(rng), palette(rng)
    amount = np.float32(between(rng, 0.2, 0.9))
    picture = mixed(fractal(rng, height, width), first, first + amount * (second - first))
    return mixed(noise(rng, height, width, between(rng, 8, 80)) * amount, picture, third)


def areas(rng: Random, palette: Palette, height: int, width: int) -> Floats:
    """Return a few large areas of different color: walls, fields, a table."""
    image = Image.new("RGB", (width, height), _ints(palette(rng)))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 6))):
        if chance(rng, 0.5):
            outline = smooth_outline(rng, 0.3) * (width, height) * between(rng, 0.2, 0.8)
            outline += rng.random(2) * (width, height)
        else:
            outline = rng.uniform(-0.3, 1.3, (4, 2)) * (width, height)
        pen.polygon([(x, y) for x, y in outline.tolist()], fill=_ints(palette(rng)))
    return np.asarray(image, dtype=np.float32) + fine(rng, height, width) * 2


def vessel(rng: Random, palette: Palette, height: int, width: int) -> Floats:
    """Return a bright round field, as seen in a microscope or a dish."""
    color, outside = brightened(palette(rng), 80), palette(rng) * np.float32(0.3)
    y = (np.arange(height, dtype=np.float32)[:, None] - height * between(rng, 0.35, 0.65)) / (height / 2)
    x = (np.arange(width, dtype=np.float32) - width * between(rng, 0.35, 0.65)) / (height / 2)
    radius = np.hypot(y, x)
    edge, sharp = between(rng, 0.8, 1.6), between(rng, 3, 20)
    inside = np.clip((np.float32(edge) - radius) * np.float32(sharp), 0, 1)
    return mixed(inside, outside, color + fine(rng, height, width))


Background = Callable[[Random, Palette, int, int], Floats]
_BACKGROUNDS: tuple[tuple[Background, float], ...] = (
    (plain, 0.15),
    (patterned, 0.35),
    (clouded, 0.2),
    (areas, 0.22),
    (vessel, 0.08),
)


def random_background(rng: Random, palette: Palette, height: int, width: int) -> Floats:
    """Return a background for objects that lie anywhere."""
    return weighted(rng, _BACKGROUNDS)(rng, palette, height, width)


def ground(rng: Random, palette: Palette, height: int, width: int, horizon: int) -> Floats:
    """Return a plane below ``horizon`` (in rows) whose structure gets finer with distance, and what is above it."""
    sky = mixed(gradient(rng, height, width), palette(rng), palette(rng))
    if chance(rng, 0.6):  # hills, trees or walls at the horizon
        skyline = noise(rng, 2, width, between(rng, 5, 60))[0] * between(rng, 0.05, 0.5) * height
        rows = np.arange(height, dtype=np.float32)[:, None]
        behind = np.clip(rows - (horizon - skyline)[None], 0, 1).astype(np.float32)
        sky = mixed(behind, sky, mixed(fractal(rng, height, width), palette(rng), palette(rng)))
    color = palette(rng)
    side = max(height, width)
    texture = random_pattern(rng)(rng, side, side)
    below = np.arange(1, height - horizon + 1, dtype=np.float32) / max(height - horizon, 1)  # 1 is the nearest row
    rows = np.clip((side - 1) * 0.35 / (below + 0.35) * 1.35 - 0.26 * side, 0, side - 1).astype(int)
    x = np.arange(width, dtype=np.float32) - width * between(rng, 0.3, 0.7)
    columns = (x[None] / (below[:, None] + np.float32(0.15)) + side * 4).astype(int) % side
    plane = texture[rows[:, None], columns]
    other = color + np.float32(between(rng, 0.1, 0.5)) * (palette(rng) - color)
    picture = sky
    picture[horizon:] = mixed(plane, color, other) + fine(rng, height - horizon, width)
    if chance(rng, 0.6):
        picture = _with_road(rng, picture, palette(rng), horizon)
    return picture


def _with_road(rng: Random, picture: Floats, color: Floats, horizon: int) -> Floats:
    """Draw a road from the lower edge to a vanishing point, with lines."""
    height, width = picture.shape[:2]
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    point, center, half = between(rng, 0.2, 0.8) * width, between(rng, 0.1, 0.9) * width, between(rng, 0.2, 0.9) * width
    pen.polygon(
        [(point - 1, horizon), (point + 1, horizon), (center + half, height), (center - half, height)], _ints(color)
    )
    line = _ints(brightened(color, 100 if color.mean() < 130 else -100))
    for place in np.linspace(-1, 1, int(rng.integers(2, 6))).tolist():
        pen.line([(point, horizon), (center + 0.95 * place * half, height)], fill=line, width=int(rng.integers(1, 3)))
    return np.asarray(image, dtype=np.float32)


def shelves(rng: Random, palette: Palette, height: int, width: int, edges: list[int]) -> Floats:
    """Return a wall with boards that objects stand on. edges: upper edge of each board, in rows."""
    picture = patterned(rng, palette, height, width) if chance(rng, 0.5) else plain(rng, palette, height, width)
    color, thick = palette(rng), max(1, round(height * between(rng, 0.01, 0.05)))
    for edge in edges:
        picture[edge : edge + thick] = color
        picture[edge + thick : edge + 2 * thick] *= np.float32(0.6)
    return picture


def fine(rng: Random, height: int, width: int) -> Floats:
    """Return fine gray structure ``[h, w, 1]`` around 0, to add to a picture."""
    if height == 0 or chance(rng, 0.4):
        return np.zeros((height, width, 1), dtype=np.float32)
    amount = np.float32(log_uniform(rng, 2.7, 40))
    return ((speckle(rng, height, width) - np.float32(0.5)) * amount)[..., None]


def _ints(color: Floats) -> tuple[int, int, int]:
    red, green, blue = color.astype(int).tolist()
    return red, green, blue
