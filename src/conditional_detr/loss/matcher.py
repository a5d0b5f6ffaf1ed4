"""Hungarian matching of queries and objects, for all decoder layers and images in one call."""

from collections.abc import Sequence
from itertools import compress

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from conditional_detr.boxes import center_to_corners, iou_and_giou
from conditional_detr.errors import NonFiniteError
from conditional_detr.structures import Predictions, Target

EPSILON = 1e-8  # inside the logarithms of the class cost, as published


class PaddedTargets:
    """Targets of a batch as rectangular tensors, so that all layers and images are computed at once.

    labels ``[batch, objects]``, boxes ``[batch, objects, 4]``, where objects is the largest count of the batch. Padding
    entries hold class 0 and the box of the whole image, which keeps every formula finite.
    """

    def __init__(self, targets: Sequence[Target], device: torch.device, dtype: torch.dtype) -> None:
        self.counts = [len(target.labels) for target in targets]
        self.names = [target.image_name or f"image {target.image_id}" for target in targets]
        shape = (len(targets), max(self.counts, default=0))
        labels = torch.zeros(shape, dtype=torch.int64)
        boxes = torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(*shape, 4).clone()
        for i, target in enumerate(targets):
            labels[i, : self.counts[i]] = target.labels
            boxes[i, : self.counts[i]] = target.boxes
        self.labels: Int64[Tensor, "batch objects"] = labels.to(device, non_blocking=True)
        self.boxes: Float[Tensor, "batch objects 4"] = boxes.to(device, dtype, non_blocking=True)


class HungarianMatcher:
    """Minimum-cost one-to-one assignment (DETR, section 3.1).

    The cost is the weighted sum of a class cost, the L1 distance of (cx, cy, w, h) and the negative GIoU. The class cost is
    that of the focal loss with alpha and gamma (as in Deformable DETR), or with ``softmax`` the negative probability (as in
    DETR).
    """

    def __init__(
        self, *, class_cost: float, l1_cost: float, giou_cost: float, softmax: bool, alpha: float, gamma: float
    ) -> None:
        self.class_cost, self.l1_cost, self.giou_cost = class_cost, l1_cost, giou_cost
        self.softmax, self.alpha, self.gamma = softmax, alpha, gamma

    @torch.no_grad()
    def cost(self, predictions: Predictions, targets: PaddedTargets) -> Float[Tensor, "layers batch queries objects"]:
        """Compute the cost of every pair of query and object. The caller must ignore padding entries."""
        logits, boxes = predictions
        layers, _, queries, _ = logits.shape
        labels = targets.labels[None, :, None, :].expand(layers, -1, queries, -1)
        if self.softmax:
            class_cost = -logits.softmax(-1).gather(-1, labels)
        else:
            score = logits.gather(-1, labels).sigmoid()
            positive = self.alpha * (1 - score) ** self.gamma * -(score + EPSILON).log()
            negative = (1 - self.alpha) * score**self.gamma * -(1 - score + EPSILON).log()
            class_cost = positive - negative
        pairs = boxes[..., :, None, :], targets.boxes[None, :, None, :, :]
        l1 = (pairs[0] - pairs[1]).abs().sum(-1)
        _, giou = iou_and_giou(center_to_corners(pairs[0]), center_to_corners(pairs[1]))
        return self.class_cost * class_cost + self.l1_cost * l1 - self.giou_cost * giou

    @torch.no_grad()
    def __call__(
        self, predictions: Predictions, targets: PaddedTargets
    ) -> tuple[Int64[Tensor, "layers batch objects"], Bool[Tensor, "layers batch objects"]]:
        """Return the query of every object, and whether the object has one.

        If there are more objects than queries, some objects have none. Copies from device to host once. Raises
        ``NonFiniteError`` when a prediction is NaN or infinite.
        """
        health = predictions.logits.sum(-1, keepdim=True) + predictions.boxes.sum(-1, keepdim=True)
        copied = torch.cat([self.cost(predictions, targets), health], dim=-1).cpu().numpy()
        if not np.isfinite(copied).all():
            raise NonFiniteError(_describe(predictions, np.asarray(~np.isfinite(copied).all((2, 3))), targets.names))
        layers, batch, _, _ = copied.shape
        query_of = torch.zeros(layers, batch, targets.labels.shape[1], dtype=torch.int64)
        matched = torch.zeros_like(query_of, dtype=torch.bool)
        for layer in range(layers):
            for image, count in enumerate(targets.counts):
                queries, objects = linear_sum_assignment(copied[layer, image, :, :count])
                query_of[layer, image, objects] = torch.from_numpy(queries)
                matched[layer, image, objects] = True
        device = predictions.logits.device
        return query_of.to(device, non_blocking=True), matched.to(device, non_blocking=True)


def _describe(predictions: Predictions, bad: np.ndarray, names: Sequence[str]) -> str:
    """Describe which predictions are not finite. bad: layers and images concerned, ``[layers, batch]``."""
    found: list[str] = []
    for layer, images in enumerate(bad):
        here = predictions.logits[layer], predictions.boxes[layer]
        terms = [name for name, x in zip(("class logits", "boxes"), here, strict=True) if not x.isfinite().all()]
        if images.any():
            what = " and ".join(terms or ["matching costs"])
            found.append(f"{what} of decoder layer {layer + 1} for {', '.join(compress(names, images))}")
    return "NaN or infinity in " + "; ".join(found)
