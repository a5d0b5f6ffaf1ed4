"""Box formats and overlaps. Boxes are cx, cy, w, h ("center") or x0, y0, x1, y1 ("corners")."""

import torch
from jaxtyping import Float
from torch import Tensor


def center_to_corners(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Convert cx, cy, w, h to x0, y0, x1, y1."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([center - 0.5 * size, center + 0.5 * size], dim=-1)


def corners_to_center(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Convert x0, y0, x1, y1 to cx, cy, w, h."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def area(corners: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Return the area of boxes given by corners."""
    return (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])


def iou_and_giou(
    a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Compute IoU and generalized IoU (Rezatofighi et al., CVPR 2019) of boxes given by corners, with broadcasting.

    For all pairs of n and m boxes: ``iou_and_giou(a[:, None], b[None])``. At least one box of a pair must have a positive
    area.
    """
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    intersection = inner[..., 0] * inner[..., 1]
    enclosure = outer[..., 0] * outer[..., 1]
    union = area(a) + area(b) - intersection
    iou = intersection / union
    return iou, iou - (enclosure - union) / enclosure
