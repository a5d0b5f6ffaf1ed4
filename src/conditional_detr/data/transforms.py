"""The published augmentation of images and boxes, which is that of DETR: flip, resize and random crop.

Boxes are x0, y0, x1, y1 in pixels of their image.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from conditional_detr.boxes import corners_to_center
from conditional_detr.config import DataSettings
from conditional_detr.errors import ImageError
from conditional_detr.record import MAX_PIXELS, resized_size


@dataclass(frozen=True)
class LabeledImage:
    """An image and its objects. boxes: x0, y0, x1, y1 in pixels. labels: logit indices. name: name for messages."""

    image: Image.Image
    boxes: Float[Tensor, "objects 4"]
    labels: Int64[Tensor, " objects"]
    name: str = "image"

    def relative_boxes(self) -> Float[Tensor, "objects 4"]:
        """Return the boxes as cx, cy, w, h in 0..1, relative to this image."""
        width, height = self.image.size
        return corners_to_center(self.boxes) / torch.tensor([width, height, width, height], dtype=torch.float32)


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


def crop(sample: LabeledImage, top: int, left: int, height: int, width: int) -> LabeledImage:
    """Crop to a region. Boxes are clipped to it, and boxes without area inside it are dropped."""
    limits = torch.tensor([width, height] * 2, dtype=torch.float32)
    boxes = (sample.boxes - torch.tensor([left, top] * 2, dtype=torch.float32)).clamp(min=0).minimum(limits)
    keep = (boxes[:, 2:] > boxes[:, :2]).all(-1)
    image = sample.image.crop((left, top, left + width, top + height))
    return replace(sample, image=image, boxes=boxes[keep], labels=sample.labels[keep])


def augment(sample: LabeledImage, settings: DataSettings, rng: np.random.Generator) -> LabeledImage:
    """Augment for training: random flip, then either a resize, or a resize, a random crop and a resize."""
    if rng.random() < settings.flip:
        sample = flip(sample)
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
