"""The training loss: classification, L1 and GIoU on matched pairs, for every decoder layer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from conditional_detr.boxes import center_to_corners, iou_and_giou
from conditional_detr.config import LossSettings
from conditional_detr.errors import NonFiniteError
from conditional_detr.loss.matcher import HungarianMatcher, PaddedTargets
from conditional_detr.structures import Predictions, Target

TERMS = ("class", "l1", "giou")


class Losses(NamedTuple):
    """Losses of a batch. total: weighted sum to differentiate. terms: unweighted and detached, per term, layer and image."""

    total: Float[Tensor, ""]
    terms: Float[Tensor, "terms layers batch"]

    def by_term(self) -> Float[Tensor, "terms layers"]:
        """Return the terms summed over the batch."""
        return self.terms.sum(-1)

    def check_finite(self, names: Sequence[str]) -> None:
        """Raise ``NonFiniteError`` naming term, layer and image when a term is NaN or infinite."""
        bad = ~self.terms.isfinite()
        found = [
            f"the {TERMS[term]} loss of decoder layer {layer + 1} for {names[image]}"
            for term, layer, image in bad.nonzero().tolist()
        ]
        if found:
            raise NonFiniteError("NaN or infinity in " + "; ".join(found))


def focal_positive(logits: Float[Tensor, "*batch"], alpha: float, gamma: float) -> Float[Tensor, "*batch"]:
    """Compute the sigmoid focal loss (Lin et al., ICCV 2017) of logits whose class is present."""
    return alpha * (1 - logits.sigmoid()) ** gamma * functional.softplus(-logits)


def focal_negative(logits: Float[Tensor, "*batch"], alpha: float, gamma: float) -> Float[Tensor, "*batch"]:
    """Compute the sigmoid focal loss of logits whose class is absent."""
    return (1 - alpha) * logits.sigmoid() ** gamma * functional.softplus(logits)


def matchability_positive(
    logits: Float[Tensor, "*batch"], iou: Float[Tensor, "*batch"], gamma: float
) -> Float[Tensor, "*batch"]:
    """Compute the matchability-aware loss (DEIM, Huang et al., CVPR 2025) of logits whose class is present.

    iou: of the predicted box and the object, in 0..1. The score is to reach its power ``gamma``.
    """
    wanted = iou**gamma
    return wanted * functional.softplus(-logits) + (1 - wanted) * functional.softplus(logits)


def matchability_negative(logits: Float[Tensor, "*batch"], gamma: float) -> Float[Tensor, "*batch"]:
    """Compute the matchability-aware loss of logits whose class is absent, weighted by their scores without gradient."""
    return logits.sigmoid().detach() ** gamma * functional.softplus(logits)


class Criterion:
    """Set prediction loss (DETR, section 3.1) over all decoder layers at once, with one matcher call.

    class_weight, l1_weight, giou_weight: factors of the three terms in the total. The class loss is the focal loss with alpha
    and gamma, the matchability-aware loss when mal_gamma is given, or DETR's cross entropy when no_object_weight is given.
    """

    def __init__(
        self,
        *,
        matcher: HungarianMatcher,
        class_weight: float,
        l1_weight: float,
        giou_weight: float,
        alpha: float,
        gamma: float,
        mal_gamma: float | None,
        no_object_weight: float | None,
    ) -> None:
        self.matcher = matcher
        self.weights = (class_weight, l1_weight, giou_weight)
        self.alpha, self.gamma = alpha, gamma
        self.mal_gamma = mal_gamma
        self.no_object_weight = no_object_weight

    def __call__(
        self, predictions: Predictions, targets: Sequence[Target], num_boxes: float, share: float = 1.0
    ) -> Losses:
        """Compute the losses of a batch.

        num_boxes: divisor of every term; as published, the number of objects in the whole batch, averaged over processes.
        share: fraction of the optimizer step that this batch is. It scales the cross entropy, which is a weighted mean over
        the queries of this batch and is not divided by num_boxes.
        Images without objects, and objects that have no query, contribute to the class loss only.
        Raises ``NonFiniteError`` when a prediction is NaN or infinite.
        """
        logits, boxes = predictions
        padded = PaddedTargets(targets, logits.device, boxes.dtype)
        query_of, matched = self.matcher(predictions, padded)

        labels = padded.labels.expand_as(query_of)
        matched_boxes = boxes.gather(2, query_of[..., None].expand(-1, -1, -1, 4))
        target_boxes = padded.boxes.expand_as(matched_boxes)
        l1_loss = ((matched_boxes - target_boxes).abs().sum(-1) * matched).sum(-1) / num_boxes
        iou, giou = iou_and_giou(center_to_corners(matched_boxes), center_to_corners(target_boxes))
        giou_loss = ((1 - giou) * matched).sum(-1) / num_boxes

        if self.no_object_weight is None:
            class_loss = self._sigmoid_loss(logits, query_of, labels, matched, iou.detach()) / num_boxes
        else:
            class_loss = self._cross_entropy(logits, query_of, labels, matched, self.no_object_weight) * share

        terms = torch.stack([class_loss, l1_loss, giou_loss])
        total = sum(
            (weight * term.sum() for weight, term in zip(self.weights, terms, strict=True)), terms.new_zeros(())
        )
        return Losses(total, terms.detach())

    def _sigmoid_loss(
        self,
        logits: Float[Tensor, "layers batch queries classes"],
        query_of: Int64[Tensor, "layers batch objects"],
        labels: Int64[Tensor, "layers batch objects"],
        matched: Bool[Tensor, "layers batch objects"],
        iou: Float[Tensor, "layers batch objects"],
    ) -> Float[Tensor, "layers batch"]:
        """Sum the focal or the matchability-aware loss over queries and classes."""
        # Count every logit as negative, then replace the matched logit of each object by a positive.
        matched_logits = logits.flatten(2).gather(-1, query_of * logits.shape[-1] + labels)
        if self.mal_gamma is None:
            positives = focal_positive(matched_logits, self.alpha, self.gamma)
        else:
            positives = matchability_positive(matched_logits, iou, self.mal_gamma)
        exchange = positives - self._negatives(matched_logits)
        return self._negatives(logits).sum((-2, -1)) + (exchange * matched).sum(-1)

    def _negatives(self, logits: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        if self.mal_gamma is None:
            return focal_negative(logits, self.alpha, self.gamma)
        return matchability_negative(logits, self.mal_gamma)

    def _cross_entropy(
        self,
        logits: Float[Tensor, "layers batch queries classes"],
        query_of: Int64[Tensor, "layers batch objects"],
        labels: Int64[Tensor, "layers batch objects"],
        matched: Bool[Tensor, "layers batch objects"],
        no_object_weight: float,
    ) -> Float[Tensor, "layers batch"]:
        """Compute the part of every image in the weighted mean over the queries of a batch (DETR, section 3.1)."""
        loss = -logits.log_softmax(-1)
        # Count every query as "no object", the last class, then replace the matched ones by their objects.
        nothing = loss[..., -1]
        of_object = loss.flatten(2).gather(-1, query_of * logits.shape[-1] + labels)
        exchange = of_object - no_object_weight * nothing.gather(-1, query_of)
        sums = no_object_weight * nothing.sum(-1) + (exchange * matched).sum(-1)
        objects = matched.sum((-2, -1)).to(loss.dtype)
        weights = no_object_weight * nothing[0].numel() + (1 - no_object_weight) * objects
        return sums / weights[:, None]


def build_criterion(settings: LossSettings, softmax: bool = False) -> Criterion:
    """Build the criterion of these settings. softmax: classes share a softmax instead of having a sigmoid each."""
    settings = settings.resolved(softmax)
    assert settings.class_cost != "auto"
    assert settings.class_weight != "auto"
    alpha, gamma = settings.focal_alpha, settings.focal_gamma
    matcher = HungarianMatcher(
        class_cost=settings.class_cost,
        l1_cost=settings.l1_cost,
        giou_cost=settings.giou_cost,
        softmax=softmax,
        alpha=alpha,
        gamma=gamma,
    )
    return Criterion(
        matcher=matcher,
        class_weight=settings.class_weight,
        l1_weight=settings.l1_weight,
        giou_weight=settings.giou_weight,
        alpha=alpha,
        gamma=gamma,
        mal_gamma=settings.mal_gamma if settings.class_loss == "mal" else None,
        no_object_weight=settings.no_object_weight if softmax else None,
    )
