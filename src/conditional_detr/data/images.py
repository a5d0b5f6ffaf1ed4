"""The one way an image file becomes pixels: in training, evaluation and prediction alike.

A file is turned upright by its EXIF orientation, as viewers, OpenCV and annotation tools show it; pixels handed over
(arrays, PIL images) are taken as they are. 16-bit grey is scaled to 8 bits, alpha is dropped, and of an animation the
first frame counts.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from conditional_detr.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def read_image(path: str | Path) -> Image.Image:
    """Decode a file to an upright RGB image. Raises ``InputError`` naming the file when that can't be done."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels on and refuses from twice as many; the refusal is enough.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            image.load()
            return ImageOps.exif_transpose(to_rgb(image, str(path)))
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"image {path} does not exist; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, not an image; name a file") from error
    except UnidentifiedImageError as error:
        what = "is empty" if Path(path).stat().st_size == 0 else "is not an image of a known format"
        raise InputError(f"{path} {what}; replace or remove the file") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"image {path} declares too many pixels to decode safely; scale it down") from error
    except Exception as error:  # Pillow's decoders raise anything: OSError, SyntaxError, struct.error, zlib.error, ...
        raise InputError(f"image {path} is damaged ({error}); replace or remove the file") from error


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """8-bit RGB of an image in any mode. Raises ``InputError`` for float pixels, whose range nobody knows."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"{name} has pixels of mode {image.mode} with an unknown range; convert it to 8 or 16 bits"
            )
        scaled = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
        scaled.info = {key: value for key, value in image.info.items() if key == "exif"}
        return scaled.convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def from_array(pixels: np.ndarray) -> Image.Image:
    """RGB image of a uint8 array ``[height, width, 3]``. Raises ``InputError`` for anything else."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(
            f"an image array must be uint8 of shape [height, width, 3] in RGB order, got {pixels.dtype} {pixels.shape}"
        )
    return Image.fromarray(pixels)


def to_pixels(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """ImageNet-normalised float32 pixels of an RGB image."""
    # Made contiguous while still bytes: twice as fast as arithmetic on strided floats.
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return values.sub_(mean[:, None, None]).div_(std[:, None, None])
