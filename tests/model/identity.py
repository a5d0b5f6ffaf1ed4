"""Print a table of the differences between the network and the recorded numbers of the official codes.

python -m tests.model.identity

``test_reference`` checks tolerances; this prints the largest differences: of logits and boxes of all layers in float32, of
norms and probes of all outputs in float64, of all losses, of assignments, and of norm and probe of every gradient in float64
(case a, relative to the gradient's norm).
"""

from collections.abc import Iterable

import numpy as np
import torch

from conditional_detr.loss.matcher import PaddedTargets
from tests.conftest import load_weight_rule
from tests.model.reference import NAMES, Reference, boxes_of, criterion_of, load_reference, outputs

HEADER = ("model", "logits", "boxes", "outputs, float64", "losses", "assignments", "gradients, float64")


def main() -> None:
    print(f"| {' | '.join(HEADER)} |\n{'|---' * len(HEADER)}|")
    for name in NAMES:
        reference = load_reference(name, load_weight_rule())
        print(f"| {name} | {' | '.join(row(reference))} |", flush=True)


def row(reference: Reference) -> Iterable[str]:
    arrays = reference.arrays
    with torch.no_grad():
        single = outputs(reference, torch.float32)
    for ours, key in ((single.logits, "logits"), (single.boxes, "boxes")):
        theirs = np.concatenate([arrays[f"aux_{key}"], arrays[f"pred_{key}"][None]])
        yield f"{np.abs(ours.numpy() - theirs).max():.0e}"
    double = outputs(reference, torch.float64)
    yield f"{max(output_differences(reference, double)):.0e}"
    losses = [difference for case in "abc" for difference in loss_differences(reference, single, case)]
    yield f"{max(losses):.0e}"
    wrong, total = (
        sum(counts) for counts in zip(*(assignments(reference, single, case) for case in "ab"), strict=True)
    )
    yield f"{wrong} of {total} differ"
    yield f"{max(gradient_differences(reference, double)):.0e}"


def output_differences(reference: Reference, double) -> Iterable[float]:
    values = {
        "pred_logits": double.logits[-1],
        "pred_boxes": double.boxes[-1],
        "aux_logits": double.logits[:-1],
        "aux_boxes": double.boxes[:-1],
    }
    for name, value in values.items():
        recorded = reference.meta["outputs_f64"][name]
        numbers = value.detach().numpy()
        yield abs(np.linalg.norm(numbers) - recorded["norm"]) / recorded["norm"]
        yield abs(reference.probe(f"out/{name}", numbers) - recorded["probe"]) / recorded["norm"]


def loss_differences(reference: Reference, single, case: str) -> Iterable[float]:
    targets = reference.targets(case)
    losses = criterion_of(reference)(single, targets, boxes_of(targets))
    recorded = reference.meta["cases"][case]["losses"]
    layers = losses.terms.shape[1]
    for term, name in enumerate(("loss_ce", "loss_bbox", "loss_giou")):
        for layer in range(layers):
            theirs = recorded[name if layer == layers - 1 else f"{name}_{layer}"]
            yield abs(losses.by_term()[term, layer].item() - theirs) / max(abs(theirs), 1e-12)


def assignments(reference: Reference, single, case: str) -> tuple[int, int]:
    """Return the number of objects with another query than recorded, and the number of objects, over all layers."""
    targets = reference.targets(case)
    matcher = criterion_of(reference).matcher
    query_of, _ = matcher(single, PaddedTargets(targets, torch.device("cpu"), torch.float32))
    wrong = total = 0
    for layer, of_images in enumerate(query_of):
        for image, of_objects in enumerate(of_images):
            queries, objects = reference.arrays[f"match_{case}_layer{layer}_image{image}"]
            wrong += int((of_objects[objects].numpy() != queries).sum())
            total += len(queries)
    return wrong, total


def gradient_differences(reference: Reference, double) -> Iterable[float]:
    reference.model.zero_grad()
    targets = reference.targets("a")
    criterion_of(reference)(double, targets, boxes_of(targets)).total.backward()
    for name, parameter in reference.model.named_parameters():
        if not parameter.requires_grad:
            continue
        official = reference.official[name]
        recorded = reference.meta["cases"]["a"]["grads"][official]
        if recorded["norm_f64"] < 1e-3:  # zero in exact arithmetic
            continue
        yield abs(parameter.grad.norm().item() - recorded["norm_f64"]) / recorded["norm_f64"]
        probe = reference.probe(official, parameter.grad.numpy())
        yield abs(probe - recorded["probe_f64"]) / recorded["norm_f64"]


if __name__ == "__main__":
    main()
