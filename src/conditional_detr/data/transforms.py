"""The published augmentation on an image and its boxes: flip, resize, random crop (DETR's).

Boxes are x0, y0, x1, y1 in pixels of the image they come with.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from conditional_detr.boxes import corners_to_centre
from conditional_detr.config import DataSettings


@dataclass(frozen=True)
class LabelledImage:
    """An image and the objects in it; boxes are corners in pixels, labels logit indices."""

    image: Image.Image
    boxes: Float[Tensor, "objects 4"]
    labels: Int64[Tensor, " objects"]

    def relative_boxes(self) -> Float[Tensor, "objects 4"]:
        """cx, cy, w, h in 0..1 of this image."""
        width, height = self.image.size
        return corners_to_centre(self.boxes) / torch.tensor([width, height, width, height], dtype=torch.float32)


def resized_size(height: int, width: int, short_side: int, max_size: int | None) -> tuple[int, int]:
    """(height, width) after scaling the shorter side to ``short_side``, the longer one to at most ``max_size``.

    The published rule: when the limit binds, the *shorter* side is rounded first, so the longer one can exceed the limit
    by a pixel. No side becomes 0.
    """
    if max_size is not None and max(height, width) / min(height, width) * short_side > max_size:
        short_side = max(round(max_size * min(height, width) / max(height, width)), 1)
    if min(height, width) == short_side:
        return height, width
    if width < height:
        return int(short_side * height / width), short_side
    return short_side, int(short_side * width / height)


def resize_image(image: Image.Image, short_side: int, max_size: int | None) -> Image.Image:
    """Scale an image to ``resized_size`` (Pillow, bilinear with antialiasing)."""
    height, width = resized_size(image.height, image.width, short_side, max_size)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def resize(sample: LabelledImage, short_side: int, max_size: int | None) -> LabelledImage:
    """Scale image and boxes."""
    image = resize_image(sample.image, short_side, max_size)
    ratio = [image.width / sample.image.width, image.height / sample.image.height]
    return replace(sample, image=image, boxes=sample.boxes * torch.tensor(ratio * 2, dtype=torch.float32))


def flip(sample: LabelledImage) -> LabelledImage:
    """Mirror left and right."""
    x0, y0, x1, y1 = sample.boxes.unbind(-1)
    width = sample.image.width
    image = sample.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return replace(sample, image=image, boxes=torch.stack([width - x1, y0, width - x0, y1], dim=-1))


def crop(sample: LabelledImage, top: int, left: int, height: int, width: int) -> LabelledImage:
    """Cut out a region; boxes are clipped to it, and those without area inside it dropped."""
    limits = torch.tensor([width, height] * 2, dtype=torch.float32)
    boxes = (sample.boxes - torch.tensor([left, top] * 2, dtype=torch.float32)).clamp(min=0).minimum(limits)
    keep = (boxes[:, 2:] > boxes[:, :2]).all(-1)
    image = sample.image.crop((left, top, left + width, top + height))
    return LabelledImage(image, boxes[keep], sample.labels[keep])


def augment(sample: LabelledImage, settings: DataSettings, rng: np.random.Generator) -> LabelledImage:
    """What training sees: flip, then either a resize or a resize, a crop and a resize."""
    if rng.random() < settings.flip:
        sample = flip(sample)
    if rng.random() < settings.crop:
        sample = resize(sample, int(rng.choice(settings.crop_short_sides)), None)
        width, height = (
            int(rng.integers(min(settings.crop_min, side), min(settings.crop_max, side) + 1))
            for side in sample.image.size
        )
        top = int(rng.integers(sample.image.height - height + 1))
        left = int(rng.integers(sample.image.width - width + 1))
        sample = crop(sample, top, left, height, width)
    return resize(sample, int(rng.choice(settings.short_sides)), settings.max_size)
