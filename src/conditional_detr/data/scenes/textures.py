"""Colors, and patterns of brightness from 0 to 1 that backgrounds and objects are filled with."""

import colorsys
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from conditional_detr.data.scenes.arrays import Floats, Number, Random
from conditional_detr.data.scenes.choices import between, chance, one_of

# --- colors ---

Palette = Callable[[Random], Floats]


def random_palette(rng: Random) -> Palette:
    """Return a source of colors that go together: of any hue, muted, of one hue, or gray."""
    hue, spread, bright = between(rng, 0, 1), between(rng, 0.03, 0.2), between(rng, 0.2, 0.8)
    style = int(rng.integers(5))

    def color(rng: Random) -> Floats:
        value = between(rng, 0.08, 1)
        if style == 0:  # any hue
            return _rgb(between(rng, 0, 1), between(rng, 0.1, 1), value)
        if style == 1:  # muted, as most photographs are
            return _rgb(between(rng, 0, 1), between(rng, 0, 0.4), value)
        if style == 2:  # earth, plants and sky
            natural = one_of(rng, (0.08, 0.1, 0.25, 0.3, 0.57))
            return _rgb(natural + between(rng, -0.03, 0.03), between(rng, 0.1, 0.7), value)
        if style == 3:  # of one hue
            return _rgb(hue + between(rng, -spread, spread), between(rng, 0.1, 0.8), value)
        return _rgb(hue, 0.08, bright + between(rng, -0.2, 0.2))

    return color


def _rgb(hue: Number, saturation: Number, value: Number) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32) * 255


def brightened(color: Floats, amount: Number) -> Floats:
    """Return a color with a number of 0..255 added to all channels, inside the range."""
    return np.clip(color + np.float32(amount), 0, 255)


# --- patterns ---


def resized(values: Floats, height: int, width: int) -> Floats:
    """Enlarge an array ``[h, w]`` smoothly."""
    image = Image.fromarray(np.asarray(values, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def noise(rng: Random, height: int, width: int, cell: Number, stretch: Number = 1) -> Floats:
    """Return smooth noise, about 0 to 1, with blotches of ``cell`` pixels, ``stretch`` times as wide as high."""
    rows = max(2, round(height / cell * math.sqrt(stretch)))
    columns = max(2, round(width / cell / math.sqrt(stretch)))
    values = rng.random((min(rows, height), min(columns, width)), dtype=np.float32)
    return resized(values, height, width)


def fractal(rng: Random, height: int, width: int) -> Floats:
    """Return noise of several scales, with mean about 0.5."""
    cell = max(1.5, min(height, width) * between(rng, 0.15, 0.7))
    persistence, stretch = between(rng, 0.35, 0.85), between(rng, 0.6, 1.6)
    total, strength, weight = np.zeros((height, width), dtype=np.float32), 1.0, 0.0
    while cell >= 1.5 and strength > 0.1:
        total += np.float32(strength) * noise(rng, height, width, cell, stretch)
        weight += strength
        strength *= persistence
        cell /= between(rng, 2, 3.5)
    return contrasted(total / np.float32(weight), between(rng, 1.2, 2.5))


def contrasted(values: Floats, factor: Number) -> Floats:
    return np.clip((values - np.float32(0.5)) * np.float32(factor) + np.float32(0.5), 0, 1)


def blotches(rng: Random, height: int, width: int) -> Floats:
    """Return spots with sharp or soft edges."""
    field = noise(rng, height, width, max(2.5, min(height, width) * between(rng, 0.05, 0.3)))
    return contrasted(field + np.float32(between(rng, -0.15, 0.15)), between(rng, 3, 12))


def gradient(rng: Random, height: int, width: int) -> Floats:
    along = _ramp(rng, height, width)
    low, high = along.min(), along.max()
    return (along - low) / max(high - low, np.float32(1e-3))


def stripes(rng: Random, height: int, width: int) -> Floats:
    period = max(3.0, min(height, width) * between(rng, 0.06, 0.5))
    wave = np.sin(_ramp(rng, height, width) * np.float32(2 * math.pi / period))
    return contrasted(wave * np.float32(0.5) + np.float32(0.5), between(rng, 1, 8))


def checks(rng: Random, height: int, width: int) -> Floats:
    period = max(4.0, min(height, width) * between(rng, 0.1, 0.5))
    angle = between(rng, 0, math.pi / 2) if chance(rng, 0.5) else 0
    frequency = np.float32(2 * math.pi / period)
    waves = np.sin(_ramp(rng, height, width, angle) * frequency)
    waves = waves * np.sin(_ramp(rng, height, width, angle + math.pi / 2) * frequency)
    return contrasted(waves * np.float32(0.5) + np.float32(0.5), between(rng, 2, 16))


def tiles(rng: Random, height: int, width: int) -> Floats:
    """Return tiles or bricks of different brightness with joints between them."""
    tall = max(5, round(min(height, width) * between(rng, 0.06, 0.3)))
    wide = max(5, round(tall * between(rng, 0.8, 2.5)))
    rows, columns = np.arange(height) // tall, np.arange(width)
    shift = (rows % 2) * (wide // 2 if chance(rng, 0.5) else 0)
    places = (columns[None] + shift[:, None]) % wide
    shades = rng.random((height // tall + 1, width // wide + 2), dtype=np.float32) * np.float32(0.4) + np.float32(0.4)
    values = shades[rows[:, None], (columns[None] + shift[:, None]) // wide]
    joint = between(rng, 0, 1)
    values[np.arange(height) % tall == 0] = joint
    values[places == 0] = joint
    return values


def grain(rng: Random, height: int, width: int) -> Floats:
    """Return fibers: wood, grass, fur, brushed metal."""
    stretch = between(rng, 8, 40) if chance(rng, 0.5) else 1 / between(rng, 8, 40)
    cell = between(rng, 4, 10)
    coarse = noise(rng, height, width, cell * 4, stretch)
    return contrasted(np.float32(0.5) * (noise(rng, height, width, cell, stretch) + coarse), between(rng, 1, 2.5))


def dots(rng: Random, height: int, width: int) -> Floats:
    period = max(4.0, min(height, width) * between(rng, 0.08, 0.3))
    angle, frequency = between(rng, 0, math.pi / 2), np.float32(2 * math.pi / period)
    waves = np.cos(_ramp(rng, height, width, angle) * frequency)
    waves = waves + np.cos(_ramp(rng, height, width, angle + math.pi / 2) * frequency)
    return contrasted(waves * np.float32(0.25) + np.float32(between(rng, 0.1, 0.4)), between(rng, 4, 12))


def speckle(rng: Random, height: int, width: int) -> Floats:
    return noise(rng, height, width, between(rng, 1, 2.5))


def _ramp(rng: Random, height: int, width: int, angle: Number | None = None) -> Floats:
    """Return the position along a direction in pixels, from a random origin on."""
    turn = between(rng, 0, 2 * math.pi) if angle is None else angle
    x = np.arange(width, dtype=np.float32) * np.float32(math.cos(turn))
    y = np.arange(height, dtype=np.float32) * np.float32(math.sin(turn))
    return y[:, None] + x[None] + np.float32(between(rng, 0, 100))


Pattern = Callable[[Random, int, int], Floats]
PATTERNS: tuple[Pattern, ...] = (fractal, fractal, blotches, gradient, stripes, checks, tiles, grain, dots, speckle)


def random_pattern(rng: Random) -> Pattern:
    return one_of(rng, PATTERNS)


def mixed(pattern: Floats, low: Floats, high: Floats) -> Floats:
    """Return colors ``[h, w, 3]`` between two of them, as a pattern ``[h, w]`` says. Each color is ``[3]`` or ``[h, w, 3]``."""
    colors = np.empty((*pattern.shape, 3), dtype=np.float32)
    for channel in range(3):  # eight times as fast as an inner loop over three channels
        colors[..., channel] = low[..., channel] + pattern * (high[..., channel] - low[..., channel])
    return colors
