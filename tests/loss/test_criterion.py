"""The criterion against a slow, obvious implementation, and on edge cases."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from conditional_detr.boxes import center_to_corners, iou_and_giou
from conditional_detr.config import LossSettings
from conditional_detr.errors import NonFiniteError
from conditional_detr.loss.criterion import Losses, build_criterion
from conditional_detr.structures import Predictions, Target

LAYERS, QUERIES, CLASSES = 3, 6, 4


def make(counts, seed: int = 0, queries: int = QUERIES):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(LAYERS, len(counts), queries, CLASSES, generator=generator)
    boxes = torch.rand(LAYERS, len(counts), queries, 4, generator=generator) * 0.5 + 0.2
    targets = [
        Target(
            torch.randint(CLASSES, (n,), generator=generator),
            torch.rand(n, 4, generator=generator) * 0.5 + 0.2,
            image_name=f"image-{i}.jpg",
        )
        for i, n in enumerate(counts)
    ]
    return Predictions(logits.requires_grad_(), boxes.requires_grad_()), targets


def slow(predictions: Predictions, targets, num_boxes: float) -> torch.Tensor:
    """Compute the loss one layer, image and pair at a time, as the paper defines it."""
    total = torch.zeros(())
    for logits, boxes in zip(*predictions, strict=True):
        for image_logits, image_boxes, target in zip(logits, boxes, targets, strict=True):
            wanted = torch.zeros_like(image_logits)
            if len(target.labels):
                p = image_logits.sigmoid()[:, target.labels]
                positive = -0.25 * (1 - p) ** 2 * (p + 1e-8).log()
                negative = -0.75 * p**2 * (1 - p + 1e-8).log()
                l1 = torch.cdist(image_boxes, target.boxes, p=1)
                _, giou = iou_and_giou(center_to_corners(image_boxes)[:, None], center_to_corners(target.boxes)[None])
                cost = 2 * (positive - negative) + 5 * l1 - 2 * giou
                for q, t in zip(*linear_sum_assignment(cost.detach().numpy()), strict=True):
                    wanted[q, target.labels[t]] = 1
                    total = total + (5 * l1[q, t] + 2 * (1 - giou[q, t])) / num_boxes
            cross_entropy = functional.binary_cross_entropy_with_logits(image_logits, wanted, reduction="none")
            score = image_logits.sigmoid()
            p_t = torch.where(wanted > 0, score, 1 - score)
            alpha = torch.where(wanted > 0, 0.25, 0.75)
            total = total + 2 * (alpha * (1 - p_t) ** 2 * cross_entropy).sum() / num_boxes
    return total


@pytest.mark.parametrize("counts", [(3, 2), (0, 4), (0, 0), (1,), (QUERIES + 3, 2), (QUERIES, 0, 1)])
def test_equals_the_slow_version(counts):
    predictions, targets = make(counts)
    num_boxes = float(max(sum(counts), 1))
    losses = build_criterion(LossSettings())(predictions, targets, num_boxes)
    expected = slow(predictions, targets, num_boxes)
    torch.testing.assert_close(losses.total, expected, rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(losses.total, predictions, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(expected, predictions, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("counts", [(3, 2), (0, 4), (0, 0), (QUERIES + 3, 2)])
def test_the_matchability_aware_loss_is_binary_cross_entropy_towards_a_power_of_the_iou(counts):
    predictions, targets = make(counts)
    losses = build_criterion(LossSettings(class_loss="mal"))(predictions, targets, 1.0)
    expected = torch.zeros(())
    for logits, boxes in zip(*predictions, strict=True):
        for image_logits, image_boxes, target in zip(logits, boxes, targets, strict=True):
            wanted = torch.zeros_like(image_logits)
            weight = image_logits.sigmoid().detach() ** 1.5
            if len(target.labels):
                p = image_logits.sigmoid()[:, target.labels]
                cost = 2 * (-0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log())
                iou, giou = iou_and_giou(center_to_corners(image_boxes)[:, None], center_to_corners(target.boxes)[None])
                cost = cost + 5 * torch.cdist(image_boxes, target.boxes, p=1) - 2 * giou
                for q, t in zip(*linear_sum_assignment(cost.detach().numpy()), strict=True):
                    wanted[q, target.labels[t]] = iou[q, t].detach() ** 1.5
                    weight[q, target.labels[t]] = 1
            expected = expected + functional.binary_cross_entropy_with_logits(
                image_logits, wanted, weight, reduction="sum"
            )
    torch.testing.assert_close(losses.by_term()[0].sum(), expected.detach(), rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(losses.total, predictions.logits)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, predictions.logits), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("counts", [(3, 2), (0, 4), (0, 0), (QUERIES + 3, 2)])
def test_softmax_loss_is_torch_s_weighted_cross_entropy(counts):
    """Class loss and class cost of DETR, where the last class is "no object"."""
    predictions, targets = make(counts)
    targets = [Target(target.labels % (CLASSES - 1), target.boxes) for target in targets]
    losses = build_criterion(LossSettings(), softmax=True)(predictions, targets, 1.0, share=0.5)
    weight = torch.ones(CLASSES)
    weight[-1] = 0.1
    for layer in range(LAYERS):
        wanted = torch.full((len(counts), QUERIES), CLASSES - 1)
        for image, target in enumerate(targets):
            logits, boxes = predictions.logits[layer, image], predictions.boxes[layer, image]
            _, giou = iou_and_giou(center_to_corners(boxes)[:, None], center_to_corners(target.boxes)[None])
            l1 = torch.cdist(boxes, target.boxes, p=1)
            cost = 5 * l1 - 2 * giou - logits.softmax(-1)[:, target.labels]
            queries, objects = linear_sum_assignment(cost.detach().numpy())
            wanted[image, queries] = target.labels[objects]
        expected = functional.cross_entropy(predictions.logits[layer].transpose(1, 2), wanted, weight)
        torch.testing.assert_close(losses.by_term()[0, layer], 0.5 * expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_group_is_matched_by_itself():
    """Group DETR: the loss of two groups is the mean of the losses of each group alone."""
    predictions, targets = make((2, 3))
    criterion = build_criterion(LossSettings())
    half = QUERIES // 2
    alone = [
        criterion(Predictions(*(part[:, :, rows] for part in predictions)), targets, 5.0).total
        for rows in (slice(half), slice(half, None))
    ]
    repeated = [target for target in targets for _ in range(2)]
    together = criterion(predictions.by_group(2), repeated, 10.0).total
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)


def test_batch_without_objects_gives_every_input_a_finite_gradient():
    predictions, targets = make((0, 0))
    build_criterion(LossSettings())(predictions, targets, 1.0).total.backward()
    assert predictions.logits.grad.isfinite().all()
    assert predictions.logits.grad.abs().sum() > 0
    assert (predictions.boxes.grad == 0).all()


def test_objects_beyond_the_queries_are_left_out():
    predictions, targets = make((9,), queries=2)
    losses = build_criterion(LossSettings())(predictions, targets, 9.0)
    assert losses.total.isfinite()
    assert losses.terms[1].max() <= 2 * 4 / 9  # two matched pairs with an L1 loss of at most 4 each


def test_terms_add_up():
    predictions, targets = make((3, 0, 2))
    losses = build_criterion(LossSettings())(predictions, targets, 5.0)
    weights = torch.tensor([2.0, 5.0, 2.0])[:, None, None]
    torch.testing.assert_close((weights * losses.terms).sum(), losses.total.detach())
    assert (losses.terms[1:, :, 1] == 0).all()  # the image without objects has a class loss only


@pytest.mark.parametrize(
    ("part", "term"), [("logits", "class logits of decoder layer 2"), ("boxes", "boxes of decoder layer 2")]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_predictions_name_term_layer_and_image(part, term, value):
    predictions, targets = make((1, 0, 2))
    with torch.no_grad():
        getattr(predictions, part)[1, 2, 3, 0] = value
    with pytest.raises(NonFiniteError, match=term) as caught:
        build_criterion(LossSettings())(predictions, targets, 3.0)
    assert "image-2.jpg" in str(caught.value)
    assert "image-0.jpg" not in str(caught.value)


def test_non_finite_terms_are_named():
    """A loss can overflow although every prediction is finite."""
    terms = torch.zeros(3, 2, 2)
    terms[2, 1, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"the giou loss of decoder layer 2 for a\.jpg$"):
        Losses(terms.sum(), terms).check_finite(["a.jpg", "b.jpg"])
    Losses(terms.sum(), torch.zeros(3, 2, 2)).check_finite(["a.jpg", "b.jpg"])


def test_one_matcher_call_and_one_copy_to_the_host(monkeypatch):
    """One call serves all layers and images. On a GPU, each copy waits for all preceding work."""
    predictions, targets = make((3, 0, 2))
    copies, calls = [], []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: (copies.append(tensor.shape), original(tensor))[1])
    criterion = build_criterion(LossSettings())
    matcher = criterion.matcher
    criterion.matcher = lambda *args: (calls.append(args), matcher(*args))[1]
    for name in ("item", "tolist", "__bool__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("another copy to the host"))
    criterion(predictions, targets, 5.0)
    assert len(calls) == 1
    assert copies == [(LAYERS, 3, QUERIES, 4)]  # costs of at most three objects, and one column that reveals NaN
