"""Make padded batches of RGB images, the same way for training, evaluation and prediction."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from conditional_detr.data.images import to_pixels
from conditional_detr.data.transforms import scale_image
from conditional_detr.errors import ImageError
from conditional_detr.input_size import MAX_PIXELS, InputSize
from conditional_detr.structures import ImageBatch


def prepare(image: Image.Image, size: InputSize, name: str = "image") -> Float[Tensor, "3 height width"]:
    """Scale an RGB image to the input size of a model, and return its ImageNet-normalized pixels.

    Raises ``ImageError``, with the name of the image, when they would be more than ``MAX_PIXELS``.
    """
    return to_pixels(scale_image(image, *size.resized(image.height, image.width), name))


def pad(images: Sequence[Tensor], size: InputSize | None = None) -> ImageBatch:
    """Pad normalized images ``[3, height, width]`` with zeros at the right and bottom, and return them as one batch.

    size: input size of the model, which sets the minimum padded size (``size.padded``) and whether the model takes a
    padding mask (``size.mask``). The mask is None when no image is padded. Raises ``ImageError`` when images of different
    proportions would be padded to more than ``MAX_PIXELS`` each.
    """
    size = size or InputSize()
    height, width = (max([*(size.padded or ())[i : i + 1], *(image.shape[i + 1] for image in images)]) for i in (0, 1))
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"a batch of images as wide as {width} and as high as {height} pixels would be padded to more than {MAX_PIXELS} "
            f"pixels each; set a batch size of 1 or a smaller maximum size"
        )
    if all(image.shape[1:] == (height, width) for image in images):
        return ImageBatch(torch.stack(list(images)))
    pixels = torch.zeros(len(images), 3, height, width)
    padding_mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for i, image in enumerate(images):
        pixels[i, :, : image.shape[1], : image.shape[2]] = image
        padding_mask[i, : image.shape[1], : image.shape[2]] = False
    return ImageBatch(pixels, padding_mask if size.mask else None)
