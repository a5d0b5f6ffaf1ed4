"""Small videos for tests."""

import struct
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image, ImageDraw

SIZE = (96, 64)


def picture(i: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A frame whose gray tells its number, with a red square on the left that moves right, and a blue one at the top right."""
    image = Image.new("RGB", size, (4 * i % 256,) * 3)
    pen = ImageDraw.Draw(image)
    pen.rectangle((4 + i, size[1] // 2, 19 + i, size[1] // 2 + 15), fill=(230, 30, 30))
    pen.rectangle((size[0] - 16, 0, size[0], 15), fill=(30, 30, 230))
    return image


def number_of(image: Image.Image) -> int:
    """The number of a frame, by its gray in the lower left corner."""
    return round(image.getpixel((1, image.height - 2))[0] / 4)


def write_video(
    path: Path,
    count: int = 30,
    size: tuple[int, int] = SIZE,
    fps: Fraction | int = 25,
    *,
    front: bool = True,
    gop: int = 5,
) -> Path:
    """front: keep the index at the start of an MP4 file, so that a cut-off one can be read."""
    options = {"movflags": "faststart"} if front and path.suffix == ".mp4" else {}
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = gop
        if path.suffix != ".avi":
            stream.options = {"crf": "10", "bf": "0"}
        for i in range(count):
            container.mux(stream.encode(av.VideoFrame.from_image(picture(i, size))))
        container.mux(stream.encode())
    return path


def turn(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Set the matrix by which the pictures of an MP4 file are rotated."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version, flags and ten more fields of four bytes come first
    values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    content[place : place + 36] = struct.pack(">9i", *values)
    path.write_bytes(content)


def cut(path: Path, part: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path
