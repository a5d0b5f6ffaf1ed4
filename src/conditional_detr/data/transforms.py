"""The published augmentation on an image and its boxes: flip, resize, random crop (DETR's).

Boxes are x0, y0, x1, y1 in pixels of the image they come with.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

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


SizeRule = Literal["published", "transformers", "fit", "stretch"]
BoxFrame = Literal["image", "padded", "padded-with-mask"]


@dataclass(frozen=True)
class InputSize:
    """How images are brought to the size in which a model sees them.

    sides: pixels. rule: "published" scales the shorter side to the first, the longer one to at most the second;
    "transformers" does so with a rounding of its own where the limit binds; "fit" makes the image as large as fits into
    (height, width); "stretch" makes it exactly that.
    padded: (height, width) that every image is padded to at least; None: the largest of its batch.
    boxes: what predicted boxes are relative to: the image without padding (published), or with it, which is then not
    marked by a mask, or is.
    """

    sides: tuple[int, int] = (800, 1333)
    rule: SizeRule = "published"
    padded: tuple[int, int] | None = None
    boxes: BoxFrame = "image"

    def __post_init__(self) -> None:
        if self.rule not in get_args(SizeRule):
            raise ValueError(f"rule must be one of {get_args(SizeRule)}, got {self.rule!r}")
        if self.boxes not in get_args(BoxFrame):
            raise ValueError(f"boxes must be one of {get_args(BoxFrame)}, got {self.boxes!r}")

    @property
    def mask(self) -> bool:
        """Whether the model is told what is padding."""
        return self.boxes != "padded"

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this size is scaled to."""
        if self.rule == "published":
            return resized_size(height, width, *self.sides)
        if self.rule == "transformers":
            return _resized_size_of_transformers(height, width, *self.sides)
        if self.rule == "stretch":
            return self.sides
        scale = min(self.sides[0] / height, self.sides[1] / width)
        return max(int(height * scale), 1), max(int(width * scale), 1)

    def resize(self, image: Image.Image) -> Image.Image:
        return scale_image(image, *self.resized(image.height, image.width))

    def frame(self, height: int, width: int, padded: tuple[int, int]) -> tuple[float, float]:
        """(height, width) that boxes of 0..1 are multiplied with, in pixels of the image as given.

        height, width: of the image as given. padded: (height, width) of the batch that the model saw.
        """
        if self.boxes == "image":
            return float(height), float(width)
        resized = self.resized(height, width)
        return height * padded[0] / resized[0], width * padded[1] / resized[1]


def _resized_size_of_transformers(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """As ``resized_size``, but the longer side follows from the shorter one before that is rounded."""
    shorter, longer = min(height, width), max(height, width)
    exact: float = short_side
    if longer / shorter * short_side > max_size:
        exact = max_size * shorter / longer
        short_side = max(round(exact), 1)
    if shorter == short_side:
        return height, width
    return (int(exact * height / width), short_side) if width < height else (short_side, int(exact * width / height))


def scale_image(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scale an image (Pillow, bilinear with antialiasing)."""
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def resize(sample: LabelledImage, height: int, width: int) -> LabelledImage:
    """Scale image and boxes."""
    image = scale_image(sample.image, height, width)
    ratio = [image.width / sample.image.width, image.height / sample.image.height]
    return replace(sample, image=image, boxes=sample.boxes * torch.tensor(ratio * 2, dtype=torch.float32))


def resize_shorter(sample: LabelledImage, short_side: int, max_size: int | None) -> LabelledImage:
    """Scale image and boxes to ``resized_size``."""
    return resize(sample, *resized_size(sample.image.height, sample.image.width, short_side, max_size))


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
        sample = resize_shorter(sample, int(rng.choice(settings.crop_short_sides)), None)
        width, height = (
            int(rng.integers(min(settings.crop_min, side), min(settings.crop_max, side) + 1))
            for side in sample.image.size
        )
        top = int(rng.integers(sample.image.height - height + 1))
        left = int(rng.integers(sample.image.width - width + 1))
        sample = crop(sample, top, left, height, width)
    return resize_shorter(sample, int(rng.choice(settings.short_sides)), settings.max_size)
