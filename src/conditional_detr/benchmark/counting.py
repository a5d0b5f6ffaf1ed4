"""Count multiply-adds, which papers call FLOPs."""

from collections.abc import Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from conditional_detr.architecture import Architecture
from conditional_detr.input_size import InputSize
from conditional_detr.model.network import describe_network

# Number of images by (height, width), over the 100 images of COCO val2017 with the lowest ids. DETR averages its FLOPs over
# the same images (facebookresearch/detr, issue 110).
# fmt: off
COCO_SIZES = {
    (480, 640): 17, (427, 640): 14, (425, 640): 6, (375, 500): 5, (426, 640): 4, (500, 375): 4, (612, 612): 4,
    (640, 427): 3, (361, 640): 3, (240, 320): 2, (640, 480): 2, (400, 600): 2, (640, 586): 1, (483, 640): 1,
    (640, 428): 1, (640, 424): 1, (640, 621): 1, (512, 640): 1, (315, 640): 1, (419, 640): 1, (302, 500): 1,
    (640, 457): 1, (366, 640): 1, (555, 640): 1, (640, 443): 1, (363, 640): 1, (384, 640): 1, (640, 425): 1,
    (349, 640): 1, (500, 333): 1, (640, 444): 1, (428, 640): 1, (531, 640): 1, (351, 640): 1, (333, 500): 1,
    (396, 500): 1, (640, 478): 1, (482, 640): 1, (640, 638): 1, (640, 429): 1, (359, 640): 1, (459, 640): 1,
    (640, 640): 1, (539, 640): 1, (640, 551): 1, (640, 550): 1,
}
# fmt: on


def multiply_adds(architecture: Architecture, classes: int, size: tuple[int, int]) -> int:
    """Count the multiply-adds of matrix products and convolutions for one image, on the meta device.

    classes: number of classes. size: (height, width) of the network input in pixels.
    """
    network = describe_network(architecture, classes).eval().requires_grad_(False)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *size))
    return counter.get_total_flops() // 2


def mean_multiply_adds(
    architecture: Architecture, classes: int, size: InputSize, images: Mapping[tuple[int, int], int] | None = None
) -> float:
    """Return the mean multiply-adds over images.

    images: number of images by (height, width) of the files in pixels, by default ``COCO_SIZES``. size: rule that scales them.
    """
    images = images or COCO_SIZES
    seen: dict[tuple[int, int], int] = {}
    total = 0
    for image, count in images.items():
        resized = size.resized(*image)
        if resized not in seen:
            seen[resized] = multiply_adds(architecture, classes, resized)
        total += count * seen[resized]
    return total / sum(images.values())
