"""Draw one scene: a layout of objects, with looks, clutter and shadows, as a camera sees it."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from conditional_detr.data.generated import Drawing, random_numbers
from conditional_detr.data.scenes.arrays import Floats, Number, Random
from conditional_detr.data.scenes.canvas import Canvas, Pose, Sprite, render
from conditional_detr.data.scenes.choices import between, chance, log_uniform, one_of
from conditional_detr.data.scenes.kinds import SCENES
from conditional_detr.data.scenes.layouts import Placed, random_layout
from conditional_detr.data.scenes.light import photographed
from conditional_detr.data.scenes.parts import Object, stroke
from conditional_detr.data.scenes.textures import (
    Palette,
    Pattern,
    brightened,
    gradient,
    mixed,
    random_palette,
    random_pattern,
)
from conditional_detr.errors import SettingsError

SIDE = 192  # pixels of the longer side, if nothing else is asked for
SMALLEST, LARGEST = 32, 2048  # pixels of the longer side
_ASPECTS = (1, 4 / 3, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3)  # width / height of images


def draw_scene(seed: int, index: int, size: int = SIDE, split: str = "train") -> Drawing:
    """Return image ``index`` of the data set that ``write_scenes`` writes with this seed, before its compression as JPEG.

    size: longer side in pixels. boxes: x, y, width, height of the visible part of each object. category_ids: ids in ``SCENES``.
    Raises ``SettingsError`` for a negative seed or index, and for a size out of range.
    """
    check_size(size)
    return compose(random_numbers(seed, split, index), size)


def check_size(size: int) -> None:
    """Raise ``SettingsError`` unless images can have a longer side of ``size`` pixels."""
    if not SMALLEST <= size <= LARGEST:
        raise SettingsError(
            f"the longer side of the images must have {SMALLEST} to {LARGEST} pixels, got {size}", argument="size"
        )


def compose(rng: Random, size: int) -> Drawing:
    """Draw a random scene whose longer side has ``size`` pixels. At least one object is visible."""
    while True:
        aspect = one_of(rng, _ASPECTS)
        width, height = round(size * min(1, aspect)), round(size * min(1, 1 / aspect))
        canvas, kinds = _painted(rng, height, width)
        found = [(box, SCENES.ids[kind]) for box, kind in zip(canvas.boxes(), kinds, strict=True) if box is not None]
        if found:
            image = photographed(rng, canvas.pixels)
            return Drawing(image, [box for box, _ in found], [category_id for _, category_id in found])


def _painted(rng: Random, height: int, width: int) -> tuple[Canvas, list[int]]:
    """Return a canvas with a scene, and the index of the kind of each object on it."""
    palette = random_palette(rng)
    layout = random_layout(rng, palette, height, width)
    canvas = Canvas(layout.background)
    clutter = int(rng.integers(0, 12)) if chance(rng, 0.5) else 0
    for _ in range(clutter):
        _paint_clutter(rng, canvas, palette)
    if chance(rng, 0.15):  # the background is out of focus
        _soften(canvas, between(rng, 0.5, 0.015 * max(height, width)))
    style = _Style(
        palette if chance(rng, 0.6) else random_palette(rng),
        contrast=between(rng, 25, 45) if chance(rng, 0.2) else between(rng, 45, 110),
        textured=between(rng, 0, 1),
        opacity=between(rng, 0.7, 0.95) if chance(rng, 0.1) else 1,
        shadow=_random_shadow(rng) if layout.shadows and chance(rng, 0.35) else None,
    )
    looks: dict[int, _Look] = {}
    for placed in layout.objects:
        shared = placed.model.look
        look = looks.get(shared) if shared is not None else None
        if look is None:
            look = _random_look(rng, style)
            if shared is not None:
                looks[shared] = look
        _paint_object(rng, canvas, placed, look, style)
    if chance(rng, 0.12):  # wires, branches, scratches
        for _ in range(int(rng.integers(1, 4))):
            _paint_line(rng, canvas, palette, 0.012)
    return canvas, [placed.model.kind for placed in layout.objects]


# --- looks ---


class _Shadow(NamedTuple):
    """dx, dy, blur: parts of the size of the object. amount: part of the light that is taken."""

    dx: float
    dy: float
    blur: float
    amount: float


class _Style(NamedTuple):
    """What the objects of a scene have in common. contrast: minimum of 0..255 between an object and what is around it."""

    palette: Palette
    contrast: float
    textured: float
    opacity: Number
    shadow: _Shadow | None


class _Look(NamedTuple):
    """colors: ``[6, 3]``, see ``Part``; the last one is that of the pattern, which has a strength of 0..1."""

    colors: Floats
    pattern: Pattern | None
    strength: float
    shaded: Number
    rim: Number


def _random_shadow(rng: Random) -> _Shadow:
    return _Shadow(
        between(rng, -0.25, 0.25), between(rng, -0.05, 0.25), between(rng, 0.01, 0.1), between(rng, 0.2, 0.6)
    )


def _random_look(rng: Random, style: _Style) -> _Look:
    main = style.palette(rng)
    others = [brightened(main, between(rng, -70, 70)) if chance(rng, 0.5) else style.palette(rng) for _ in range(2)]
    dark, light = main * np.float32(between(rng, 0.1, 0.5)), brightened(main, between(rng, 40, 120))
    pattern = random_pattern(rng) if chance(rng, style.textured) else None
    second = brightened(main, between(rng, -90, 90)) if chance(rng, 0.6) else style.palette(rng)
    shaded = between(rng, 20, 110) if chance(rng, 0.5) else 0
    rim = between(rng, -80, 50) if chance(rng, 0.25) else 0
    return _Look(np.stack([main, *others, dark, light, second]), pattern, between(rng, 0.2, 0.9), shaded, rim)


def _contrasting(rng: Random, colors: Floats, around: Floats, contrast: Number) -> Floats:
    """Return colors ``[n, 3]`` that all differ from what is around, in a channel, and the first one by ``contrast``.

    A part that looks like the background would leave open how large the object is.
    """
    least = np.full(len(colors), 0.8 * contrast)
    least[0] = contrast
    weak = np.abs(colors - around).max(1) < least
    if not weak.any():
        return colors
    level = float(around.mean())
    side = (1 if chance(rng, 0.5) else -1) if 70 < level < 185 else (1 if level < 128 else -1)
    targets = level + side * 1.1 * least
    moved = np.clip(colors + (targets - colors.mean(1))[:, None].astype(np.float32), 0, 255)
    return np.where(weak[:, None], moved, colors)


def _paint_object(rng: Random, canvas: Canvas, placed: Placed, look: _Look, style: _Style) -> None:
    half = placed.pose.longer / 2
    center = (round(2 * half), round(2 * half))
    rows, columns = canvas.region(center, round(placed.x - half), round(placed.y - half))
    around = canvas.pixels[rows, columns][::2, ::2].reshape(-1, 3)
    mean = around.mean(0) if len(around) else np.zeros(3, dtype=np.float32)
    colors = _contrasting(rng, look.colors, mean, style.contrast)
    sprite = _finished(rng, render(placed.model.parts, placed.pose, colors), look, colors[-1])
    height, width = sprite.coverage.shape
    left, top = round(placed.x - width / 2), round(placed.y - height / 2)
    if style.shadow is not None:
        dx, dy = round(style.shadow.dx * placed.pose.longer), round(style.shadow.dy * placed.pose.longer)
        blur = style.shadow.blur * placed.pose.longer
        canvas.darken(sprite.coverage, left + dx, top + dy, style.shadow.amount, blur)
    canvas.paint(sprite, left, top, opacity=style.opacity)


def _finished(rng: Random, sprite: Sprite, look: _Look, second: Floats) -> Sprite:
    """Return the object with texture, shading and a rim, if it is large enough to show them."""
    colors, coverage = sprite
    height, width = coverage.shape
    if min(height, width) < 8:
        return sprite
    if look.pattern is not None:
        colors = mixed(look.pattern(rng, height, width) * np.float32(look.strength), colors, second)
    if look.shaded:
        colors = colors + ((gradient(rng, height, width) - np.float32(0.5)) * np.float32(look.shaded))[..., None]
    if look.rim:
        image = Image.fromarray((coverage * 255).astype(np.uint8))
        inner = image.filter(ImageFilter.BoxBlur(max(1, min(height, width) / 14)))
        edge = 1 - np.asarray(inner, dtype=np.float32) * np.float32(1 / 255)
        colors = colors + (edge * np.float32(2 * look.rim))[..., None]
    return Sprite(np.clip(colors, 0, 255), coverage)


# --- clutter, which is not annotated ---


def _paint_clutter(rng: Random, canvas: Canvas, palette: Palette) -> None:
    kind = int(rng.integers(6))
    if kind == 0:
        _paint_line(rng, canvas, palette, 0.02)
    elif kind == 1:
        _paint_specks(rng, canvas, palette)
    else:
        _paint_patch(rng, canvas, palette)


def _paint_line(rng: Random, canvas: Canvas, palette: Palette, thickest: Number) -> None:
    """Paint a straight or bent line across the picture."""
    height, width = canvas.size
    points = rng.uniform(-0.3, 1.3, (int(rng.integers(2, 5)), 2)) * (width, height)
    extent = points.max(0) - points.min(0)
    longer = float(extent.max())
    if longer < 8:
        return
    thick = between(rng, 0.003, thickest) * max(height, width) / longer * 2
    parts = [stroke((points - points.min(0)) / longer * 2 - 1, thick)]
    _paint_part(canvas, parts, Pose(longer), palette(rng), points.min(0) + extent / 2, 0.9)


def _paint_specks(rng: Random, canvas: Canvas, palette: Palette) -> None:
    """Paint a few points of dust."""
    height, width = canvas.size
    color = palette(rng)
    for _ in range(int(rng.integers(3, 20))):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        canvas.pixels[y : y + int(rng.integers(1, 3)), x : x + int(rng.integers(1, 3))] = color


def _paint_patch(rng: Random, canvas: Canvas, palette: Palette) -> None:
    """Paint a soft spot that has no edge: dirt, moisture, light."""
    height, width = canvas.size
    side = int(log_uniform(rng, 0.08, 0.6) * max(height, width))
    rows, columns = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    stretch = between(rng, 0.5, 2)
    fading = np.clip(1 - rows * rows * stretch - columns * columns / stretch, 0, 1).astype(np.float32)
    colors = mixed(random_pattern(rng)(rng, side, side), palette(rng), palette(rng))
    left, top = int(rng.integers(-side // 2, width)), int(rng.integers(-side // 2, height))
    canvas.paint(Sprite(colors, fading), left, top, opacity=between(rng, 0.1, 0.45), counted=False)


def _paint_part(canvas: Canvas, parts: Object, pose: Pose, color: Floats, center: Floats, opacity: Number) -> None:
    sprite = render(parts, pose, color[None])
    height, width = sprite.coverage.shape
    canvas.paint(
        sprite,
        round(float(center[0]) - width / 2),
        round(float(center[1]) - height / 2),
        opacity=opacity,
        counted=False,
    )


def _soften(canvas: Canvas, radius: Number) -> None:
    image = Image.fromarray(np.clip(canvas.pixels, 0, 255).astype(np.uint8))
    canvas.pixels = np.asarray(image.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32).copy()
