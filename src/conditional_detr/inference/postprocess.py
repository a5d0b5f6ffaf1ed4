"""Convert the outputs of a network to detections in image pixels, as the official codes do."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conditional_detr.boxes import center_to_corners
from conditional_detr.record import Categories
from conditional_detr.structures import Detections, Outputs

PUBLISHED_COUNT = 100  # detections per image in COCO's metric and in the official code


def class_scores(logits: Float[Tensor, "*batch outputs"], softmax: bool) -> Float[Tensor, "*batch classes"]:
    """Return scores in 0..1 of every query and class. With ``softmax``, the last logit is "no object" and gets no score."""
    return logits.softmax(-1)[..., :-1] if softmax else logits.sigmoid()


def top_pairs(
    logits: Float[Tensor, "batch queries classes"], boxes: Float[Tensor, "batch queries 4"], count: int
) -> tuple[Float[Tensor, "batch top"], Int64[Tensor, "batch top"], Float[Tensor, "batch top 4"]]:
    """Return scores, logit indices and boxes of the top-k query-class pairs (k = ``count``), best first.

    This is the post-processing of Conditional DETR with sigmoid scores. A query may appear several times, with different
    classes. The result is shorter than ``count`` when there are fewer pairs.
    """
    scores = class_scores(logits, softmax=False).flatten(1)
    scores, index = scores.topk(min(count, scores.shape[1]), dim=1)
    query = index // logits.shape[-1]
    return scores, index % logits.shape[-1], boxes.gather(1, query[..., None].expand(-1, -1, 4))


def best_classes(
    logits: Float[Tensor, "batch queries classes"], boxes: Float[Tensor, "batch queries 4"], count: int
) -> tuple[Float[Tensor, "batch top"], Int64[Tensor, "batch top"], Float[Tensor, "batch top 4"]]:
    """Return scores, logit indices and boxes of at most ``count`` queries with their best classes, best first.

    This is the post-processing of DETR with softmax scores, where the last logit is "no object". The official code does not
    sort the queries.
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

    image_sizes: (height, width) that scale boxes in 0..1, in image pixels. softmax: whether classification is softmax, with
    "no object" as the last logit, instead of sigmoid.
    """
    select = best_classes if softmax else top_pairs
    scores, indices, boxes = select(*outputs, count)
    scores, indices, boxes = scores.cpu(), indices.cpu(), center_to_corners(boxes).cpu().float()
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
