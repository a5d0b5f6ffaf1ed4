"""The network reproduces the official codes: outputs of every layer, every loss and every gradient.

Reference files: Conditional DETR with R50, R101 and their DC5 variants, a small model, and DETR R50. Tolerances are those of
the reference's README.
"""

import numpy as np
import pytest
import torch

from conditional_detr.config import LossSettings, TrainSettings
from conditional_detr.inference.postprocess import detections_from
from conditional_detr.loss.criterion import build_criterion
from conditional_detr.loss.matcher import PaddedTargets
from conditional_detr.model.network import ConditionalDETR
from conditional_detr.record import Categories
from conditional_detr.structures import Predictions
from conditional_detr.training.optimizer import build_optimizer
from tests.conftest import needs_shared
from tests.model.reference import NAMES, Reference, boxes_of, criterion_of, load_reference, outputs

pytestmark = needs_shared("reference/conddetr_r50.json")


@pytest.fixture(scope="module", params=NAMES)
def reference(request, weight_rule) -> Reference:
    return load_reference(request.param, weight_rule)


@pytest.fixture(scope="module")
def single(reference) -> Predictions:
    """Predict in float32."""
    with torch.no_grad():
        return outputs(reference, torch.float32)


def test_float32_outputs_of_every_layer(reference, single):
    arrays = reference.arrays
    logits = np.concatenate([arrays["aux_logits"], arrays["pred_logits"][None]])
    boxes = np.concatenate([arrays["aux_boxes"], arrays["pred_boxes"][None]])
    np.testing.assert_allclose(single.logits.numpy(), logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(single.boxes.numpy(), boxes, atol=2e-5, rtol=0)


@torch.no_grad()
def test_reference_points_and_feature_mask(reference):
    model = reference.model.float()
    if isinstance(model, ConditionalDETR):
        points = model.decoder.reference_points().expand(2, -1, -1)
        np.testing.assert_allclose(points.numpy(), reference.arrays["references"], atol=1e-6)
    else:
        assert "references" not in reference.arrays
    memory = model.encode(reference.batch.pixels, reference.batch.padding_mask)
    np.testing.assert_array_equal(memory.padding_mask.numpy(), reference.arrays["feature_mask"].reshape(2, -1))


@pytest.mark.parametrize("case", "abc")
def test_losses_and_matches(reference, single, case):
    targets = reference.targets(case)
    criterion = criterion_of(reference)
    losses = criterion(single, targets, boxes_of(targets))
    recorded = reference.meta["cases"][case]
    assert losses.total.item() == pytest.approx(recorded["total"], rel=1e-5)
    layers = losses.terms.shape[1]
    for row, name in enumerate(("loss_ce", "loss_bbox", "loss_giou")):
        for layer in range(layers):
            key = name if layer == layers - 1 else f"{name}_{layer}"
            assert losses.by_term()[row, layer].item() == pytest.approx(recorded["losses"][key], rel=1e-5), key
    query_of, matched = criterion.matcher(single, PaddedTargets(targets, torch.device("cpu"), torch.float32))
    for layer in range(layers):
        for image, target in enumerate(targets):
            queries, objects = reference.arrays[f"match_{case}_layer{layer}_image{image}"]
            assert matched[layer, image].sum() == len(target.labels)
            np.testing.assert_array_equal(query_of[layer, image, objects].numpy(), queries)


def test_postprocessing(reference):
    """Top 100 of the recorded outputs, neither clipped nor thresholded. Those of DETR are recorded unsorted."""
    arrays = reference.arrays
    logits, boxes = (torch.from_numpy(arrays[name])[None] for name in ("pred_logits", "pred_boxes"))
    classes = reference.meta["num_classes"]
    categories = Categories(tuple(range(classes)), tuple(map(str, range(classes))))
    sizes = [(float(height), float(width)) for height, width in reference.meta["orig_sizes"]]
    for i, found in enumerate(
        detections_from(Predictions(logits, boxes).last, sizes, categories, 100, reference.model.softmax)
    ):
        order = np.argsort(-arrays["post_scores"][i], kind="stable")
        scores = arrays["post_scores"][i][order]
        np.testing.assert_allclose(found.scores.numpy(), scores, rtol=1e-6)
        gaps = np.abs(np.diff(scores, prepend=2, append=-1))
        clear = (gaps[1:] > 1e-6) & (gaps[:-1] > 1e-6)
        assert clear.sum() > 90
        np.testing.assert_array_equal(found.labels.numpy()[clear], arrays["post_labels"][i][order][clear])
        np.testing.assert_allclose(
            found.boxes.numpy()[clear], arrays["post_boxes"][i][order][clear], rtol=1e-5, atol=1e-3
        )


def test_float64_outputs_and_gradients(reference):
    """Test with tight tolerances. It runs last because it leaves the model in float64.

    Case b, with an empty image, takes the same time again and is skipped for models that differ only in the backbone.
    """
    model = reference.model
    model.zero_grad()
    predictions = outputs(reference, torch.float64)
    with torch.no_grad():
        for name, values in (
            ("pred_logits", predictions.logits[-1]),
            ("pred_boxes", predictions.boxes[-1]),
            ("aux_logits", predictions.logits[:-1]),
            ("aux_boxes", predictions.boxes[:-1]),
        ):
            recorded = reference.meta["outputs_f64"][name]
            assert np.linalg.norm(values.numpy()) == pytest.approx(recorded["norm"], rel=1e-10)
            probe = reference.probe(f"out/{name}", values.numpy())
            assert probe == pytest.approx(recorded["probe"], abs=1e-10 * recorded["norm"])
            if f"{name}_f64" in reference.arrays:
                np.testing.assert_allclose(values.numpy(), reference.arrays[f"{name}_f64"], atol=1e-10, rtol=0)

    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for case in "a" if reference.name in NAMES[2:5] else "ab":
        model.zero_grad()
        targets = reference.targets(case)
        losses = criterion_of(reference)(predictions, targets, boxes_of(targets))
        losses.total.backward(retain_graph=True)
        recorded = reference.meta["cases"][case]
        assert losses.total.item() == pytest.approx(recorded["total_f64"], rel=1e-10)
        assert {reference.official[name] for name in trained} == set(recorded["grads"])
        for name, parameter in trained.items():
            official = reference.official[name]
            want = recorded["grads"][official]
            if want["norm_f64"] < 1e-3:  # zero in exact arithmetic
                assert parameter.grad.norm().item() < 1e-3
                continue
            assert parameter.grad.norm().item() == pytest.approx(want["norm_f64"], rel=1e-6), name
            probe = reference.probe(official, parameter.grad.numpy())
            assert probe == pytest.approx(want["probe_f64"], abs=1e-6 * want["norm_f64"]), name


def test_first_steps_of_training(weight_rule):
    """Three AdamW steps of the published recipe: parameter groups, learning rates, weight decay and clipping."""
    small = load_reference("conddetr_small", weight_rule)
    recorded = small.meta["training"]
    model = small.model.double().train()
    optimizer = build_optimizer(model, TrainSettings())
    assert [len(group["params"]) for group in optimizer.param_groups] == recorded["group_sizes"]
    targets = small.targets("a")
    criterion = build_criterion(LossSettings())
    for step in range(4):
        predictions = model(small.batch.pixels.double(), small.batch.padding_mask)
        losses = criterion(predictions, targets, boxes_of(targets))
        assert losses.total.item() == pytest.approx(recorded["float64"]["total"][step], rel=1e-5)
        optimizer.zero_grad()
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        assert norm.item() == pytest.approx(recorded["float64"]["grad_norm_before_clip"][step], rel=1e-4)
        optimizer.step()
