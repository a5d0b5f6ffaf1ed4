"""Outputs of a runtime -> Detections, as the official codes do it, boxes in image pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conditional_detr.boxes import centre_to_corners
from conditional_detr.record import Categories
from conditional_detr.structures import Detections, Outputs

PUBLISHED_COUNT = 100  # detections per image, in COCO's metric and in the official code


def class_scores(logits: Float[Tensor, "*batch outputs"], softmax: bool) -> Float[Tensor, "*batch classes"]:
    """Scores in 0..1 of every query and class; with ``softmax`` the last logit, "no object", has none."""
    return logits.softmax(-1)[..., :-1] if softmax else logits.sigmoid()


def top_pairs(
    logits: Float[Tensor, "batch queries classes"], boxes: Float[Tensor, "batch queries 4"], count: int
) -> tuple[Float[Tensor, "batch top"], Int64[Tensor, "batch top"], Float[Tensor, "batch top 4"]]:
    """Scores, logit indices and boxes of the ``count`` best query-class pairs, best first.

    A query may appear more than once, with different classes. Fewer than ``count`` when there are fewer pairs.
    """
    scores = class_scores(logits, softmax=False).flatten(1)
    scores, index = scores.topk(min(count, scores.shape[1]), dim=1)
    query = index // logits.shape[-1]
    return scores, index % logits.shape[-1], boxes.gather(1, query[..., None].expand(-1, -1, 4))


def best_classes(
    logits: Float[Tensor, "batch queries classes"], boxes: Float[Tensor, "batch queries 4"], count: int
) -> tuple[Float[Tensor, "batch top"], Int64[Tensor, "batch top"], Float[Tensor, "batch top 4"]]:
    """DETR's way, where classes compete and the last logit means "no object": every query with its best class.

    Scores, logit indices and boxes of at most ``count`` queries, best first (the official code leaves them unsorted).
    """
    scores, indices = class_scores(logits, softmax=True).max(-1)
    scores, query = scores.topk(min(count, scores.shape[1]), dim=1)
    return scores, indices.gather(1, query), boxes.gather(1, query[..., None].expand(-1, -1, 4))


@torch.no_grad()
def detections_from(
    outputs: Outputs,
    image_sizes: Sequence[tuple[float, float]],
    categories: Categories,
    count: int = PUBLISHED_COUNT,
    softmax: bool = False,
) -> list[Detections]:
    """Return the ``count`` most confident detections of every image, without a threshold, boxes not clipped.

    image_sizes: (height, width) that boxes are relative to, in pixels of the images as given. softmax: as in ``DETR``.
    """
    select = best_classes if softmax else top_pairs
    scores, indices, boxes = select(*outputs, count)
    scores, indices, boxes = scores.cpu(), indices.cpu(), centre_to_corners(boxes).cpu().float()
    ids = torch.tensor(categories.ids)
    return [
        Detections(
            boxes[i] * torch.tensor([width, height, width, height], dtype=torch.float32),
            scores[i].float(),
            ids[indices[i]],
            [categories.names[index] for index in indices[i].tolist()],
        )
        for i, (height, width) in enumerate(image_sizes)
    ]
