"""Pictures of the worst images, with what is wrong in each."""

import logging
from pathlib import Path

import torch
from PIL import Image

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.images import read_image
from conditional_detr.drawing import draw_boxes, write_picture
from conditional_detr.errors import ImageError
from conditional_detr.evaluation.report.findings import Box, Fault, WorstImage
from conditional_detr.text import printable

logger = logging.getLogger(__name__)
SIDE = 720  # longest side of a picture, in pixels
# Kind of error -> color of its boxes, also in the legend of the page.
COLORS: dict[str, tuple[int, int, int]] = {
    "class": (255, 140, 0),
    "place": (240, 220, 0),
    "both": (170, 90, 40),
    "duplicate": (0, 190, 220),
    "background": (235, 40, 40),
    "missed": (210, 60, 255),
}


def draw_worst(data: Annotations, worst: WorstImage, file: Path) -> bool:
    """Draw the faults in an image. Return False, and log why, when the image can't be read."""
    try:
        image = read_image(data.path(worst.index))
    except ImageError as error:
        logger.warning(f"no picture of {printable(worst.file)}: {error}")
        return False
    scale = min(SIDE / max(image.size), 5.0)  # captions need room in small images
    picture = image.resize([max(round(side * scale), 1) for side in image.size], Image.Resampling.BILINEAR)
    boxes = torch.tensor([corners(each.box) for each in worst.faults]) * scale
    captions, colors = [caption(each) for each in worst.faults], [COLORS[each.kind] for each in worst.faults]
    write_picture(draw_boxes(picture, boxes, captions, colors), file, quality=85)
    return True


def corners(box: Box) -> tuple[float, float, float, float]:
    """Return x0, y0, x1, y1 of a box given as x, y, width, height."""
    x, y, width, height = box
    return x, y, x + width, y + height


def caption(fault: Fault) -> str:
    """Return what is wrong in a few words."""
    if fault.detected is None or fault.score is None:
        return f"missed {fault.annotated}"
    seen = f"{fault.detected} {fault.score:.2f}"
    return (
        f"{seen}, is {fault.annotated}"
        if fault.kind in ("class", "both") and fault.annotated
        else f"{seen} {fault.kind}"
    )
