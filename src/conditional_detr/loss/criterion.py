"""The training loss: focal classification, L1 and GIoU on matched pairs, for every decoder layer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from conditional_detr.boxes import centre_to_corners, iou_and_giou
from conditional_detr.config import LossSettings
from conditional_detr.errors import NonFiniteError
from conditional_detr.loss.matcher import HungarianMatcher, PaddedTargets
from conditional_detr.structures import Predictions, Target

TERMS = ("class", "l1", "giou")


class Losses(NamedTuple):
    """total: what is differentiated. terms: its parts before weighting, one per term, layer and image."""

    total: Float[Tensor, ""]
    terms: Float[Tensor, "terms layers batch"]

    def by_term(self) -> Float[Tensor, "terms layers"]:
        """Sums over the batch."""
        return self.terms.sum(-1)

    def check_finite(self, names: Sequence[str]) -> None:
        """Raise ``NonFiniteError`` naming term, layer and images when a term is NaN or infinite."""
        bad = ~self.terms.isfinite()
        found = [
            f"the {TERMS[term]} loss of decoder layer {layer + 1} for {names[image]}"
            for term, layer, image in bad.nonzero().tolist()
        ]
        if found:
            raise NonFiniteError("NaN or infinity in " + "; ".join(found))


def focal_positive(logits: Float[Tensor, "*batch"], alpha: float, gamma: float) -> Float[Tensor, "*batch"]:
    """Sigmoid focal loss (Lin et al., ICCV 2017) of logits whose class is there."""
    return alpha * (1 - logits.sigmoid()) ** gamma * functional.softplus(-logits)


def focal_negative(logits: Float[Tensor, "*batch"], alpha: float, gamma: float) -> Float[Tensor, "*batch"]:
    """Sigmoid focal loss of logits whose class is not there."""
    return (1 - alpha) * logits.sigmoid() ** gamma * functional.softplus(logits)


class Criterion:
    """Set prediction loss over all decoder layers at once, with one matcher call.

    The weights are of the focal loss, of the L1 loss and of the GIoU loss; alpha and gamma are the focal loss's.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        class_weight: float,
        l1_weight: float,
        giou_weight: float,
        alpha: float,
        gamma: float,
    ) -> None:
        self.matcher = matcher
        self.weights = (class_weight, l1_weight, giou_weight)
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, predictions: Predictions, targets: Sequence[Target], num_boxes: float) -> Losses:
        """Losses of a batch.

        num_boxes: what every term is divided by. Published: the objects of the whole batch, averaged over processes. Images without objects have a class loss only; so have objects beyond the number of queries.
        Raises ``NonFiniteError`` when a prediction is NaN or infinite.
        """
        logits, boxes = predictions
        padded = PaddedTargets(targets, logits.device, boxes.dtype)
        query_of, matched = self.matcher(predictions, padded)

        # Everything counts as a negative; the matched logit of each object is then exchanged for a positive.
        negatives = focal_negative(logits, self.alpha, self.gamma)
        labels = padded.labels.expand_as(query_of)
        flat_index = query_of * logits.shape[-1] + labels
        matched_logits = logits.flatten(2).gather(-1, flat_index)
        exchange = focal_positive(matched_logits, self.alpha, self.gamma) - focal_negative(
            matched_logits, self.alpha, self.gamma
        )
        class_loss = negatives.sum((-2, -1)) + (exchange * matched).sum(-1)

        matched_boxes = boxes.gather(2, query_of[..., None].expand(-1, -1, -1, 4))
        target_boxes = padded.boxes.expand_as(matched_boxes)
        l1_loss = ((matched_boxes - target_boxes).abs().sum(-1) * matched).sum(-1)
        _, giou = iou_and_giou(centre_to_corners(matched_boxes), centre_to_corners(target_boxes))
        giou_loss = ((1 - giou) * matched).sum(-1)

        terms = torch.stack([class_loss, l1_loss, giou_loss]) / num_boxes
        total = sum(
            (weight * term.sum() for weight, term in zip(self.weights, terms, strict=True)), terms.new_zeros(())
        )
        return Losses(total, terms.detach())


def build_criterion(settings: LossSettings) -> Criterion:
    """The criterion of these settings."""
    alpha, gamma = settings.focal_alpha, settings.focal_gamma
    matcher = HungarianMatcher(settings.class_cost, settings.l1_cost, settings.giou_cost, alpha, gamma)
    return Criterion(matcher, settings.class_weight, settings.l1_weight, settings.giou_weight, alpha, gamma)
