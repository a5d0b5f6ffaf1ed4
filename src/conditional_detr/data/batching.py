"""RGB images -> one padded batch: the same for training, evaluation and prediction."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from conditional_detr.data.images import to_pixels
from conditional_detr.data.transforms import scale_image
from conditional_detr.record import InputSize
from conditional_detr.structures import ImageBatch


def prepare(image: Image.Image, size: InputSize) -> Float[Tensor, "3 height width"]:
    """Bring an RGB image to a model's size, and to ImageNet-normalized pixels."""
    return to_pixels(scale_image(image, *size.resized(image.height, image.width)))


def pad(images: Sequence[Tensor], size: InputSize | None = None) -> ImageBatch:
    """Make one batch of normalized images ``[3, height, width]``, padded with zeros on the right and at the bottom.

    size: pads to at least ``size.padded``, and leaves out the mask where the model is not told what is padding.
    """
    size = size or InputSize()
    height, width = (max([*(size.padded or ())[i : i + 1], *(image.shape[i + 1] for image in images)]) for i in (0, 1))
    if all(image.shape[1:] == (height, width) for image in images):
        return ImageBatch(torch.stack(list(images)))
    pixels = torch.zeros(len(images), 3, height, width)
    padding_mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for i, image in enumerate(images):
        pixels[i, :, : image.shape[1], : image.shape[2]] = image
        padding_mask[i, : image.shape[1], : image.shape[2]] = False
    return ImageBatch(pixels, padding_mask if size.mask else None)
