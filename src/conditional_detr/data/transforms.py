"""Augmentation of images and boxes: the published one (DETR's flip, resize and random crop), and more that is off by default.

Boxes are x0, y0, x1, y1 in pixels of their image.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from conditional_detr.boxes import corners_to_center
from conditional_detr.config import DataSettings
from conditional_detr.data.images import IMAGENET_MEAN
from conditional_detr.errors import ImageError
from conditional_detr.input_size import MAX_PIXELS, resized_size

FILL = tuple(round(255 * value) for value in IMAGENET_MEAN)  # 0 after normalization, as the padding of batches


@dataclass(frozen=True)
class LabeledImage:
    """An image and its objects. boxes: x0, y0, x1, y1 in pixels. labels: logit indices. name: name for messages."""

    image: Image.Image
    boxes: Float[Tensor, "objects 4"]
    labels: Int64[Tensor, " objects"]
    name: str = "image"

    def centers(self) -> Float[Tensor, "objects 2"]:
        """Return the centers of the boxes, x and y in pixels."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def relative_boxes(self) -> Float[Tensor, "objects 4"]:
        """Return the boxes as cx, cy, w, h in 0..1, relative to this image."""
        width, height = self.image.size
        return corners_to_center(self.boxes) / torch.tensor([width, height, width, height], dtype=torch.float32)


# --- size and position ---


def scale_image(image: Image.Image, height: int, width: int, name: str = "image") -> Image.Image:
    """Scale an image with Pillow's bilinear filter, which is antialiased.

    Raises ``ImageError``, with the name of the image, for a size of more than ``MAX_PIXELS``.
    """
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{name} of {image.width} x {image.height} pixels would be scaled to {width} x {height}, more than {MAX_PIXELS} "
            f"pixels; crop it, or set a smaller maximum size"
        )
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def resize(sample: LabeledImage, height: int, width: int) -> LabeledImage:
    """Scale image and boxes."""
    image = scale_image(sample.image, height, width, sample.name)
    ratio = [image.width / sample.image.width, image.height / sample.image.height]
    return replace(sample, image=image, boxes=sample.boxes * torch.tensor(ratio * 2, dtype=torch.float32))


def resize_shorter(sample: LabeledImage, short_side: int, max_size: int | None) -> LabeledImage:
    """Scale image and boxes to the size that ``resized_size`` computes."""
    return resize(sample, *resized_size(sample.image.height, sample.image.width, short_side, max_size))


def flip(sample: LabeledImage) -> LabeledImage:
    """Flip image and boxes horizontally."""
    x0, y0, x1, y1 = sample.boxes.unbind(-1)
    width = sample.image.width
    image = sample.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return replace(sample, image=image, boxes=torch.stack([width - x1, y0, width - x0, y1], dim=-1))


def flip_vertically(sample: LabeledImage) -> LabeledImage:
    """Flip image and boxes vertically."""
    x0, y0, x1, y1 = sample.boxes.unbind(-1)
    height = sample.image.height
    image = sample.image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return replace(sample, image=image, boxes=torch.stack([x0, height - y1, x1, height - y0], dim=-1))


def turn(sample: LabeledImage, quarters: int) -> LabeledImage:
    """Turn image and boxes counterclockwise by a number of quarter turns."""
    for _ in range(quarters % 4):
        x0, y0, x1, y1 = sample.boxes.unbind(-1)
        width = sample.image.width
        image = sample.image.transpose(Image.Transpose.ROTATE_90)
        sample = replace(sample, image=image, boxes=torch.stack([y0, width - x1, y1, width - x0], dim=-1))
    return sample


def crop(sample: LabeledImage, top: int, left: int, height: int, width: int, min_visible: float = 0.0) -> LabeledImage:
    """Crop to a region. Boxes are clipped to it, and boxes without area inside it are dropped.

    min_visible: an object whose center is outside is dropped too, unless at least this fraction of its box is inside.
    """
    origin, limits = (torch.tensor(pair * 2, dtype=torch.float32) for pair in ([left, top], [width, height]))
    boxes = (sample.boxes - origin).clamp(min=0).minimum(limits)
    centers = sample.centers()
    with_center = ((centers >= origin[:2]) & (centers <= (origin + limits)[:2])).all(-1)
    keep = (boxes[:, 2:] > boxes[:, :2]).all(-1) & (with_center | (_areas(boxes) >= min_visible * _areas(sample.boxes)))
    image = sample.image.crop((left, top, left + width, top + height))
    return replace(sample, image=image, boxes=boxes[keep], labels=sample.labels[keep])


def _areas(boxes: Float[Tensor, "objects 4"]) -> Float[Tensor, " objects"]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def crop_around_object(
    sample: LabeledImage, height: int, width: int, min_visible: float, rng: np.random.Generator
) -> LabeledImage:
    """Crop to a region of this size at a random position that contains the center of a random object.

    That object is kept. Without objects, the region is around a random point. min_visible: as in ``crop``. The size must not
    exceed that of the image.
    """
    size = sample.image.size
    objects = len(sample.boxes)
    x, y = sample.centers()[int(rng.integers(objects))].tolist() if objects else rng.uniform((0, 0), size).tolist()
    left, top = _start_around(x, width, size[0], rng), _start_around(y, height, size[1], rng)
    return crop(sample, top, left, height, width, min_visible)


def _start_around(point: float, length: int, side: int, rng: np.random.Generator) -> int:
    """Draw the start of an interval of this length within 0..side that contains a point."""
    return int(rng.integers(max(math.ceil(point - length), 0), min(math.floor(point), side - length) + 1))


def jitter_scale(
    sample: LabeledImage, scale: float, height: int, width: int, min_visible: float, rng: np.random.Generator
) -> LabeledImage:
    """Resize to height and width with the contents enlarged or shrunk by a factor.

    Enlarged contents are cropped around a random object. Shrunk contents lie at a random position on the mean color.
    """
    if scale >= 1:
        part_width, part_height = (max(round(side / scale), 1) for side in sample.image.size)
        return resize(crop_around_object(sample, part_height, part_width, min_visible, rng), height, width)
    sample = resize(sample, max(round(height * scale), 1), max(round(width * scale), 1))
    left, top = int(rng.integers(width - sample.image.width + 1)), int(rng.integers(height - sample.image.height + 1))
    canvas = Image.new("RGB", (width, height), FILL)
    canvas.paste(sample.image, (left, top))
    return replace(sample, image=canvas, boxes=sample.boxes + torch.tensor([left, top] * 2, dtype=torch.float32))


def mosaic(
    samples: Iterable[LabeledImage], height: int, width: int, min_visible: float, rng: np.random.Generator
) -> LabeledImage:
    """Make one image of this size of four: two above, two below.

    The lines between them are drawn from the middle half. Each image is cropped to the shape of its place, as large as possible
    and around one of its objects, and resized. ``samples`` is read one by one, so that they need not be in memory together.
    """
    row, column = (int(rng.integers(side // 4, side - side // 4 + 1)) for side in (height, width))
    places = [(0, 0, row, column), (0, column, row, width), (row, 0, height, column), (row, column, height, width)]
    canvas = Image.new("RGB", (width, height))
    parts: list[LabeledImage] = []
    for sample, (top, left, bottom, right) in zip(samples, places, strict=True):
        if bottom == top or right == left:  # only in images of one to three pixels
            continue
        ratio = min(sample.image.height / (bottom - top), sample.image.width / (right - left))
        part_height, part_width = (max(int(length * ratio), 1) for length in (bottom - top, right - left))
        part = crop_around_object(sample, part_height, part_width, min_visible, rng)
        part = resize(part, bottom - top, right - left)
        canvas.paste(part.image, (left, top))
        parts.append(replace(part, boxes=part.boxes + torch.tensor([left, top] * 2, dtype=torch.float32)))
    boxes, labels = torch.cat([part.boxes for part in parts]), torch.cat([part.labels for part in parts])
    return LabeledImage(canvas, boxes, labels, "mosaic of " + ", ".join(part.name for part in parts))


# --- colors ---


LUMA = np.array([0.299, 0.587, 0.114])  # of ITU-R 601, as Pillow's conversion to gray


def change_colors(image: Image.Image, brightness: float, contrast: float, saturation: float, hue: float) -> Image.Image:
    """Multiply brightness, contrast and saturation by factors, and shift the hue by a fraction of the color circle.

    Contrast is the distance from the mean gray of the image, saturation the distance from the gray of the pixel.
    """
    mean = float(np.asarray(image.convert("L")).mean())
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * LUMA)
    offset = np.full((3, 1), brightness * (1 - contrast) * mean)
    image = image.convert("RGB", tuple(np.hstack([matrix, offset]).ravel().tolist()))  # one pass for all three
    shift = round(256 * hue) % 256
    if shift == 0:  # because the way to HSV and back changes colors by rounding
        return image
    unchanged = range(256)
    table = [*((value + shift) % 256 for value in range(256)), *unchanged, *unchanged]
    return image.convert("HSV").point(table).convert("RGB")


# --- augmentation ---


def chance(probability: float, rng: np.random.Generator) -> bool:
    """Draw whether to do something. Probability 0 draws no random number, so that what is off changes nothing else."""
    return probability > 0 and rng.random() < probability


def augment(sample: LabeledImage, settings: DataSettings, rng: np.random.Generator) -> LabeledImage:
    """Augment for training, except for mosaics, which need other images."""
    if rng.random() < settings.flip:
        sample = flip(sample)
    if chance(settings.vertical_flip, rng):
        sample = flip_vertically(sample)
    if chance(settings.quarter_turns, rng):
        sample = turn(sample, int(rng.integers(1, 4)))
    sample = _scaled(sample, settings, rng) if chance(settings.scale_jitter, rng) else _resized(sample, settings, rng)
    if chance(settings.color_jitter, rng):
        sample = replace(sample, image=_with_other_colors(sample.image, settings, rng))
    return sample


def _resized(sample: LabeledImage, settings: DataSettings, rng: np.random.Generator) -> LabeledImage:
    """Resize, or resize, crop at random and resize, as published."""
    if rng.random() < settings.crop:
        short_side = int(rng.choice(settings.crop_short_sides))
        sample = resize_shorter(sample, short_side, MAX_PIXELS // short_side)  # the published code has no maximum
        width, height = (
            int(rng.integers(min(settings.crop_min, side), min(settings.crop_max, side) + 1))
            for side in sample.image.size
        )
        top = int(rng.integers(sample.image.height - height + 1))
        left = int(rng.integers(sample.image.width - width + 1))
        sample = crop(sample, top, left, height, width)
    return resize_shorter(sample, int(rng.choice(settings.short_sides)), settings.max_size)


def _scaled(sample: LabeledImage, settings: DataSettings, rng: np.random.Generator) -> LabeledImage:
    size = resized_size(
        sample.image.height, sample.image.width, int(rng.choice(settings.short_sides)), settings.max_size
    )
    scale = float(rng.uniform(settings.scale_min, settings.scale_max))
    return jitter_scale(sample, scale, *size, settings.min_visible, rng)


def _with_other_colors(image: Image.Image, settings: DataSettings, rng: np.random.Generator) -> Image.Image:
    strengths = np.array([settings.brightness, settings.contrast, settings.saturation])
    brightness, contrast, saturation = rng.uniform(1 - strengths, 1 + strengths).tolist()
    return change_colors(image, brightness, contrast, saturation, float(rng.uniform(-settings.hue, settings.hue)))
