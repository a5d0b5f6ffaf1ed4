"""The network computes what the official code computed, layer by layer, loss by loss, gradient by gradient."""

import numpy as np
import pytest
import torch

from conditional_detr.checkpoints.names import official_name
from conditional_detr.config import LossSettings, TrainSettings
from conditional_detr.loss.criterion import build_criterion
from conditional_detr.loss.matcher import PaddedTargets
from conditional_detr.training.optimizer import build_optimizer
from tests.conftest import needs_shared
from tests.model.reference import Reference, load_reference

pytestmark = needs_shared("reference/conddetr_small.json")


@pytest.fixture(scope="module")
def small(weight_rule) -> Reference:
    return load_reference("conddetr_small", weight_rule)


def outputs(reference: Reference, dtype: torch.dtype):
    model = reference.model.to(dtype)
    return model(reference.batch.pixels.to(dtype), reference.batch.padding_mask)


def boxes_of(targets) -> float:
    return float(max(1, sum(len(target.labels) for target in targets)))


@torch.no_grad()
def test_float32_outputs_of_every_layer(small):
    predictions = outputs(small, torch.float32)
    logits = np.concatenate([small.arrays["aux_logits"], small.arrays["pred_logits"][None]])
    boxes = np.concatenate([small.arrays["aux_boxes"], small.arrays["pred_boxes"][None]])
    np.testing.assert_allclose(predictions.logits.numpy(), logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(predictions.boxes.numpy(), boxes, atol=2e-5, rtol=0)


@torch.no_grad()
def test_reference_points_and_feature_mask(small):
    small.model.float()
    references = small.model.decoder.reference_points().expand(2, -1, -1)
    np.testing.assert_allclose(references.numpy(), small.arrays["references"], atol=1e-6)
    memory = small.model.encode(small.batch.pixels, small.batch.padding_mask)
    np.testing.assert_array_equal(memory.padding_mask.numpy(), small.arrays["feature_mask"].reshape(2, -1))


@torch.no_grad()
def test_float64_outputs(small):
    predictions = outputs(small, torch.float64)
    np.testing.assert_allclose(predictions.logits[-1].numpy(), small.arrays["pred_logits_f64"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(predictions.boxes[-1].numpy(), small.arrays["pred_boxes_f64"], atol=1e-10, rtol=0)
    for name, values in (("aux_logits", predictions.logits[:-1]), ("aux_boxes", predictions.boxes[:-1])):
        recorded = small.meta["outputs_f64"][name]
        assert np.linalg.norm(values.numpy()) == pytest.approx(recorded["norm"], rel=1e-10)
        assert small.probe(f"out/{name}", values.numpy()) == pytest.approx(recorded["probe"], abs=1e-8)


@pytest.mark.parametrize("case", "abc")
def test_losses_and_matches(small, case):
    small.model.eval()
    targets = small.targets(case)
    predictions = outputs(small, torch.float32)
    losses = build_criterion(LossSettings())(predictions, targets, boxes_of(targets))
    recorded = small.meta["cases"][case]
    assert losses.total.item() == pytest.approx(recorded["total"], rel=1e-5)
    layers = losses.terms.shape[1]
    for row, name in enumerate(("loss_ce", "loss_bbox", "loss_giou")):
        for layer in range(layers):
            key = name if layer == layers - 1 else f"{name}_{layer}"
            assert losses.by_term()[row, layer].item() == pytest.approx(recorded["losses"][key], rel=1e-5), key
    matcher = build_criterion(LossSettings()).matcher
    query_of, matched = matcher(predictions, PaddedTargets(targets, torch.device("cpu"), torch.float32))
    for layer in range(layers):
        for image, target in enumerate(targets):
            queries, objects = small.arrays[f"match_{case}_layer{layer}_image{image}"]
            assert matched[layer, image].sum() == len(target.labels)
            np.testing.assert_array_equal(query_of[layer, image, objects].numpy(), queries)


@pytest.mark.parametrize("case", "ab")
def test_float64_gradients(small, case):
    small.model.train()  # dropout is 0 there, and batch norm frozen
    small.model.zero_grad()
    targets = small.targets(case)
    losses = build_criterion(LossSettings())(outputs(small, torch.float64), targets, boxes_of(targets))
    losses.total.backward()
    recorded = small.meta["cases"][case]
    assert losses.total.item() == pytest.approx(recorded["total_f64"], rel=1e-10)
    trained = {n: p for n, p in small.model.named_parameters() if p.requires_grad}
    assert {official_name(name) for name in trained} == set(recorded["grads"])
    for name, parameter in trained.items():
        official = official_name(name)
        want = recorded["grads"][official]
        if want["norm_f64"] < 1e-3:  # zero in exact arithmetic
            assert parameter.grad.norm().item() < 1e-3
            continue
        assert parameter.grad.norm().item() == pytest.approx(want["norm_f64"], rel=1e-6), name
        probe = small.probe(official, parameter.grad.numpy())
        assert probe == pytest.approx(want["probe_f64"], abs=1e-6 * want["norm_f64"]), name


def test_first_steps_of_training(weight_rule):
    """Five AdamW steps of the published recipe: groups, learning rates, weight decay and clipping."""
    small = load_reference("conddetr_small", weight_rule)
    recorded = small.meta["training"]
    model = small.model.double().train()
    optimizer = build_optimizer(model, TrainSettings())
    assert [len(group["params"]) for group in optimizer.param_groups] == recorded["group_sizes"]
    targets = small.targets("a")
    criterion = build_criterion(LossSettings())
    for step in range(6):
        losses = criterion(outputs(small, torch.float64), targets, boxes_of(targets))
        assert losses.total.item() == pytest.approx(recorded["float64"]["total"][step], rel=1e-5)
        optimizer.zero_grad()
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        assert norm.item() == pytest.approx(recorded["float64"]["grad_norm_before_clip"][step], rel=1e-4)
        optimizer.step()
