"""Convert images of any kind to RGB, the same way for training, evaluation and prediction.

Files are rotated by their EXIF orientation, as viewers, OpenCV and annotation tools show them. Arrays, tensors and PIL
images are not rotated. 16-bit gray is scaled to 8 bits, alpha is dropped, and only the first frame of an animation is used.
"""

import errno
import io
import os
import stat
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from conditional_detr.errors import ImageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ORIENTATION = 0x0112  # EXIF tag
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

if TYPE_CHECKING:
    ImageLike = str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Tensor
else:
    ImageLike = object  # ``open_image`` checks the type itself, with a clear message
_KINDS = (
    "a path, a URL, bytes or an open binary file of an image, a PIL image, a NumPy array [height, width] or "
    "[height, width, 1 | 3 | 4], or a torch tensor [1 | 3 | 4, height, width]"
)
_MAX_RATIO = 10_000  # of the two sides; images with more can't show an object, and decoding them can take gigabytes
_URL_SECONDS, _URL_BYTES = 30, 100 * 2**20
Result = TypeVar("Result")


def is_image(value: object) -> bool:
    """Tell whether a value is a single image rather than a list of images."""
    return isinstance(value, (str, Path, bytes, bytearray, memoryview, Image.Image, np.ndarray, Tensor)) or hasattr(
        value, "read"
    )


def name_of(image: object, otherwise: str) -> str:
    """Return the name of an image in messages. otherwise: name of an image that is no path or URL, and no file with a name."""
    if isinstance(image, (str, Path)):
        return f"image {image}"
    name = getattr(image, "name", None) if hasattr(image, "read") else None
    return name if isinstance(name, str) else otherwise


def is_url(value: object) -> bool:
    return isinstance(value, str) and value.lower().startswith(("http://", "https://"))


def open_image(image: ImageLike, name: str = "image") -> Image.Image:
    """Return an 8-bit RGB image.

    Path (text or ``Path``), ``http(s)`` URL, bytes, open binary file: decoded and rotated by the EXIF orientation. PIL
    image: any mode but float. NumPy array: ``[height, width]`` or ``[height, width, 1]`` gray, ``[height, width, 3]`` RGB,
    ``[height, width, 4]`` RGBA; uint8, uint16, or float in 0..1. Tensor: the same with channels first,
    ``[1 | 3 | 4, height, width]``.

    name: name in messages of an image that is not a path or URL. Raises ``ImageError`` for an image that can't be used.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(image), name)
    if isinstance(image, Image.Image):
        _check_shape(image, name)
        try:
            image.load()  # PIL decodes an opened file only now
            return to_rgb(image, name)
        except (OSError, SyntaxError) as error:
            raise ImageError(f"{name} is damaged ({error}); replace or remove it") from error
    if isinstance(image, np.ndarray):
        return from_array(image, name)
    if isinstance(image, Tensor):
        return _from_tensor(image, name)
    if hasattr(image, "read"):
        content = cast(object, image.read())
        if isinstance(content, bytes):
            return _decode(io.BytesIO(content), name)
        raise ImageError(f"{name} is a file opened as text; open it with mode 'rb'")
    raise ImageError(f"{name} is of type {type(image).__name__}; give {_KINDS}")


def read_image(path: str | Path, smallest: int = 0) -> Image.Image:
    """Decode a file or URL to RGB, rotated by its EXIF orientation. Raises ``ImageError`` when it can't be read.

    smallest: for a small picture, the minimum length of its sides in pixels. A JPEG file is then decoded at a fraction of its
    size, in half the time, and in gray. All of the file is read nonetheless.
    """
    if is_url(path):
        return _decode(io.BytesIO(_download(str(path))), str(path))
    return _from_file(path, partial(_decode, smallest=smallest))


def read_header(path: str | Path) -> tuple[int, int, int]:
    """Return height and width as stored, in pixels, and the EXIF orientation, 1 to 8 where 1 is upright, without decoding.

    Raises ``ImageError`` as ``read_image`` for what the header shows.
    """
    return _from_file(path, _header)


def _from_file(path: str | Path, use: Callable[[io.BufferedIOBase, str], Result]) -> Result:
    try:
        _check_file(path)
        with Path(path).open("rb") as file:
            return use(file, str(path))
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise ImageError(f"image {path} is a link to a file that does not exist; correct or remove it") from error
        raise ImageError(f"image {path} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"image {path} can't be read ({getattr(error, 'strerror', None) or error}); check it"
        ) from error


_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _check_file(path: str | Path) -> None:
    """Raise ``ImageError`` for what is no regular file. Opening a pipe or a device could block, and reading could never end."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageError(f"image {path} is a link that leads to itself; correct or remove it") from error
        raise
    if stat.S_ISDIR(mode) and not os.access(path, os.R_OK | os.X_OK):
        raise ImageError(f"folder {path} can't be searched; check its permissions")
    if stat.S_ISDIR(mode) and os.path.islink(path):
        raise ImageError(f"{path} is a link to a folder; name the folder itself")
    if stat.S_ISDIR(mode):
        raise ImageError(f"{path} is a folder, not an image; name a file")
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path} is {_SPECIAL.get(stat.S_IFMT(mode), 'special')}, not an image; name a file")


def _check_shape(image: Image.Image, name: str) -> None:
    """Raise ``ImageError`` for an image without pixels and for one of extreme proportions, before it is decoded."""
    width, height = image.size
    if min(width, height) == 0:
        raise ImageError(f"{name} has no pixels: it is {width} x {height}; replace it")
    if max(width, height) > _MAX_RATIO * min(width, height):
        raise ImageError(
            f"{name} is {width} x {height} pixels, one side more than {_MAX_RATIO} times as long as the other; crop it"
        )


def decode_image(content: bytes, name: str = "image", *, max_pixels: int) -> Image.Image:
    """Decode the content of an image file to RGB, rotated by its EXIF orientation.

    Raises ``ImageError`` as ``read_image``, and for an image of more than ``max_pixels`` before it is decoded.
    """
    return _decode(io.BytesIO(content), name, max_pixels=max_pixels)


def pixels_in(content: bytes, name: str = "image") -> int:
    """Return the number of pixels of an image file, without decoding it. Raises ``ImageError`` as ``read_image``."""
    with _opened(io.BytesIO(content), name) as image:
        return image.width * image.height


def _decode(file: io.BufferedIOBase, name: str, smallest: int = 0, *, max_pixels: int | None = None) -> Image.Image:
    with _opened(file, name) as image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise ImageError(
                f"{name} is {image.width} x {image.height} pixels, more than the {max_pixels} allowed; scale it down"
            )
        if smallest:
            image.draft("L", (smallest, smallest))
        image.load()
    return _rotated(to_rgb(image, name), name)


def _header(file: io.BufferedIOBase, name: str) -> tuple[int, int, int]:
    with _opened(file, name) as image:
        # For PNG, ``image.getexif`` would decode all pixels, because EXIF data may follow them.
        orientation: Any = Image.Image.getexif(image).get(ORIENTATION, 1)
        return image.height, image.width, int(orientation) if orientation in range(2, 9) else 1


@contextmanager
def _opened(file: io.BufferedIOBase, name: str) -> Generator[Image.Image]:
    """Open an image without decoding it. Everything that Pillow raises becomes an ``ImageError``."""
    try:
        with Image.open(cast(BinaryIO, file)) as image:
            if image.format == "EPS":  # Pillow would run Ghostscript on it, an interpreter of a programming language
                raise ImageError(f"image {name} is a PostScript file, which is a program; convert it to PNG")
            _check_shape(image, f"image {name}")
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        file.seek(0, io.SEEK_END)
        what = "is empty" if file.tell() == 0 else "is not an image of a known format"
        raise ImageError(f"{name} {what}; replace or remove the file") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"image {name} declares too many pixels to decode safely; scale it down") from error
    except Exception as error:  # Pillow's decoders raise many types: OSError, SyntaxError, struct.error, zlib.error
        raise ImageError(f"image {name} is damaged ({error}); replace or remove the file") from error


def _rotated(image: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # as above, decoders raise many types
        raise ImageError(f"image {name} has damaged EXIF data ({error}); save it without EXIF data") from error


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_URL_SECONDS) as response:
            content = cast(bytes, response.read(_URL_BYTES + 1))
    except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise ImageError(f"{url} can't be fetched ({reason}); check the address and the network") from error
    if len(content) > _URL_BYTES:
        raise ImageError(f"{url} is larger than {_URL_BYTES >> 20} MiB; download it and give the path of the file")
    return content


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """Convert an image of any mode to 8-bit RGB. Raises ``ImageError`` for float pixels, because their range is unknown."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"{name} has pixels of mode {image.mode} with an unknown range; convert it to 8 or 16 bits"
            )
        scaled = Image.fromarray(_eight_bits(values.astype(np.uint16), name))
        scaled.info = {key: value for key, value in image.info.items() if key == "exif"}
        return scaled.convert("RGB")
    try:
        return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
    except ValueError as error:
        raise ImageError(f"{name} has pixels of mode {image.mode} ({error}); convert it to RGB") from error


def from_array(pixels: np.ndarray, name: str = "image") -> Image.Image:
    """Convert an array to an RGB image. Raises ``ImageError`` for shapes and types that ``open_image`` does not list."""
    if pixels.ndim == 4:
        raise ImageError(f"{name} is an array of several images, of shape {pixels.shape}; give them as a list")
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in pixels.shape:
        hint = "; move the channels last" if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) else ""
        raise ImageError(
            f"{name} is an array of shape {pixels.shape}; [height, width] or [height, width, 1 | 3 | 4] is needed{hint}"
        )
    eight_bits = _eight_bits(pixels, name)
    gray = channels == 1
    image = Image.fromarray(eight_bits.reshape(pixels.shape[:2]) if gray else np.ascontiguousarray(eight_bits[..., :3]))
    _check_shape(image, name)
    return image.convert("RGB") if gray else image


def _eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= 1:
            return np.rint(values * 255).astype(np.uint8)
        raise ImageError(
            f"{name} has float pixels from {low:.4g} to {high:.4g}; scale them to 0..1, or give unnormalized uint8"
        )
    raise ImageError(f"{name} has pixels of type {values.dtype}; give uint8, uint16, or float in 0..1")


def _from_tensor(pixels: Tensor, name: str) -> Image.Image:
    if pixels.ndim == 4:
        raise ImageError(f"{name} is a tensor of several images, of shape {list(pixels.shape)}; give them as a list")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4) or not pixels.numel():
        hint = "; move the channels first" if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) else ""
        raise ImageError(
            f"{name} is a tensor of shape {list(pixels.shape)}; [1 | 3 | 4, height, width] is needed{hint}"
        )
    pixels = pixels.detach().permute(1, 2, 0).cpu()
    if pixels.dtype in (torch.float16, torch.bfloat16):
        pixels = pixels.float()
    return from_array(pixels.numpy(), name)


def to_pixels(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """Return ImageNet-normalized float32 pixels of an RGB image."""
    # Making the bytes contiguous first is twice as fast as arithmetic on strided floats.
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return values.sub_(mean[:, None, None]).div_(std[:, None, None])


def to_image(pixels: Float[Tensor, "3 height width"]) -> Image.Image:
    """Return the RGB image of ImageNet-normalized pixels, the inverse of ``to_pixels``."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    values = (pixels * std[:, None, None] + mean[:, None, None]).mul(255).round().clamp(0, 255)
    return Image.fromarray(np.ascontiguousarray(values.byte().permute(1, 2, 0).numpy()))
