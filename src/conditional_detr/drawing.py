"""Draw boxes on images, pages of images, and curves of a training run."""

import colorsys
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from conditional_detr.files import whole_file
from conditional_detr.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def color_of(category_id: int) -> tuple[int, int, int]:
    """Return the color of a category; consecutive ids get colors far apart."""
    golden = 0.618034  # steps of the golden ratio keep consecutive hues apart
    red, green, blue = colorsys.hsv_to_rgb((category_id % 1000 * golden) % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: Image.Image,
    boxes: Float[Tensor, "objects 4"],
    captions: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
) -> Image.Image:
    """Return a copy of an RGB image with captioned boxes (x0, y0, x1, y1 in pixels)."""
    picture = image.copy()
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(image.size) / 400))
    font = ImageFont.load_default(max(9, round(max(image.size) / 50)))
    corners: list[list[float]] = boxes.tolist()
    # The first box is the most confident. Drawn last, it is on top.
    for (x0, y0, x1, y1), text, color in reversed(list(zip(corners, captions, colors, strict=True))):
        caption = printable(text)
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=line)
        left, top, right, bottom = pen.textbbox((0, 0), caption, font=font)
        width, height = right - left + 4, bottom - top + 4
        x = min(max(x0, 0), max(image.width - width, 0))
        y = y0 - height if y0 >= height else min(max(y0, 0), max(image.height - height, 0))
        pen.rectangle((x, y, x + width, y + height), fill=color)
        dark = sum(color) > 380
        pen.text((x + 2 - left, y + 2 - top), caption, fill=(0, 0, 0) if dark else (255, 255, 255), font=font)
    return picture


def jpeg(image: Image.Image) -> bytes:
    """Return an RGB image as the content of a JPEG file."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()


def page(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Return a page with rows of pictures below the titles of its columns. All columns are as wide as the widest picture."""
    gap, header = 8, 24
    cell = max(picture.width for row in rows for picture in row)
    heights = [max(picture.height for picture in row) for row in rows]
    width, height = gap + len(titles) * (cell + gap), header + sum(heights) + gap * len(rows)
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((gap + column * (cell + gap), 4), title, fill=(0, 0, 0), font=ImageFont.load_default(13))
    y = header
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (gap + column * (cell + gap), y))
        y += height + gap
    return sheet


def page_of_pictures(pictures: Sequence[tuple[Image.Image, str]], cell: int) -> Image.Image:
    """Return a page of pictures with their captions below. cell: length in pixels that no side of a picture exceeds."""
    gap, caption_height = 8, 20
    font = ImageFont.load_default(12)
    columns = math.ceil(math.sqrt(len(pictures) * 4 / 3))  # pages are wider than high, as screens are
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.height for picture, _ in row) + caption_height + gap for row in rows]
    page = Image.new("RGB", (gap + min(columns, len(pictures)) * (cell + gap), gap + sum(heights)), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        for column, (picture, text) in enumerate(row):
            caption = printable(text)
            x = gap + column * (cell + gap)
            page.paste(picture, (x, y))
            while len(caption) > 4 and pen.textlength(caption, font=font) > cell:
                caption = f"…{caption[max(2, len(caption) // 20) :]}"  # the end of a path tells more than its beginning
            pen.text((x, y + picture.height + 2), caption, fill=(0, 0, 0), font=font)
        y += height
    return page


def plot_curves(
    losses: Sequence[tuple[float, float]], evaluations: Sequence[tuple[float, float, float]], file: Path
) -> None:
    """Plot loss, AP and AP50 over epochs into an image file.

    losses: (epoch, loss). evaluations: (epoch, AP, AP50), in 0..1. Without any, loss is plotted alone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, *others = figure.subplots(1, 2 if evaluations else 1, squeeze=False)[0]
    loss_axes.plot([epoch for epoch, _ in losses], [loss for _, loss in losses], color="tab:red")
    loss_axes.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    epochs = [epoch for epoch, _, _ in evaluations]
    for axes in others:
        axes.plot(epochs, [ap for _, ap, _ in evaluations], marker=".", label="AP")
        axes.plot(epochs, [ap50 for _, _, ap50 in evaluations], marker=".", label="AP50")
        axes.set(xlabel="epoch", ylabel="validation AP", ylim=(0, 1))
        axes.legend(loc="lower right")
    for axes in (loss_axes, *others):
        axes.grid(alpha=0.3)
    write_picture(figure, file, dpi=110)


def write_picture(picture: "Image.Image | Figure", file: Path, **options: Any) -> None:
    """Write a picture to a file completely or not at all. The suffix of the file names the format.

    options: those of Pillow's ``save`` for an image, and of ``savefig`` for a figure of matplotlib.
    """
    # Made in memory, because Pillow's encoders do not notice that a file on a full disk was cut short.
    content = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(content, Image.registered_extensions()[file.suffix.lower()], **options)
    else:
        with warnings.catch_warnings():  # names in scripts that its font lacks are shown as boxes
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            picture.savefig(content, format=file.suffix[1:].lower(), **options)
    with whole_file(file) as partial:
        partial.write_bytes(content.getvalue())
