"""Single functions against those of the official codes."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from conditional_detr.boxes import center_to_corners, corners_to_center, iou_and_giou
from conditional_detr.config import LossSettings
from conditional_detr.inference.postprocess import detections_from
from conditional_detr.loss.criterion import build_criterion, focal_negative, focal_positive
from conditional_detr.loss.matcher import PaddedTargets
from conditional_detr.model.position import grid_encoding, inverse_sigmoid, point_encoding
from conditional_detr.record import Categories
from conditional_detr.structures import Predictions, Target
from tests.conftest import SHARED, needs_shared

pytestmark = needs_shared("reference/unit_functions.npz")


@pytest.fixture(scope="module")
def units() -> dict[str, torch.Tensor]:
    arrays = np.load(SHARED / "reference" / "unit_functions.npz")
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


@pytest.fixture(scope="module")
def meta():
    return json.loads((SHARED / "reference" / "unit_functions.json").read_text())


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


def test_inverse_sigmoid(units):
    close(inverse_sigmoid(units["inverse_sigmoid__in_x"]), units["inverse_sigmoid__out_y"])


def test_point_encoding(units):
    close(
        point_encoding(units["gen_sineembed_for_position__in_xy"], 256, 10000.0),
        units["gen_sineembed_for_position__out_embedding"],
    )


def test_grid_encoding(units):
    ours = grid_encoding(~units["position_embedding_sine__in_mask"], 256, 10000.0)
    close(ours, units["position_embedding_sine__out_pos"])


def test_feature_mask(meta, tiny_model):
    """The padding mask at feature resolution, for image sizes that are not multiples of the stride."""

    class Fixed(nn.Module):
        def forward(self, pixels):
            return torch.zeros(1, 64, *row["feature"])

    tiny_model.backbone = Fixed()
    for row in meta["feature_mask"]:
        height, width = row["image"]
        mask = torch.ones(1, *row["padded"], dtype=torch.bool)
        mask[:, :height, :width] = False
        small = tiny_model.encode(torch.zeros(1, 3, *row["padded"]), mask).padding_mask.view(row["feature"])
        assert int((~small[:, 0]).sum()) == row["valid_rows"]
        assert int((~small[0]).sum()) == row["valid_cols"]


def test_boxes(units):
    a, b = units["boxes__in_a"], units["boxes__in_b"]
    a_corners, b_corners = center_to_corners(a), center_to_corners(b)
    close(a_corners, units["boxes__out_a_xyxy"])
    close(corners_to_center(a_corners), units["boxes__out_a_back"])
    iou, giou = iou_and_giou(a_corners[:, None], b_corners[None])
    close(iou, units["boxes__out_iou"])
    close(giou, units["boxes__out_giou"])


def test_focal_loss(units, meta):
    settings = meta["sigmoid_focal_loss"]
    logits, alpha, gamma = units["sigmoid_focal_loss__in_logits"], settings["alpha"], float(settings["gamma"])
    positive, negative = focal_positive(logits, alpha, gamma), focal_negative(logits, alpha, gamma)
    loss = torch.where(units["sigmoid_focal_loss__in_onehot"] > 0, positive, negative).sum() / settings["num_boxes"]
    # The official function averages over queries; its caller multiplies by their number.
    close(loss / settings["times_queries"], units["sigmoid_focal_loss__out_loss"] / settings["times_queries"])


@pytest.mark.parametrize("case", ["few", "many", "none"])
def test_criterion_and_matches(units, meta, case):
    """Few objects, more objects than queries (the divisor counts all of them), and an image without objects."""
    prefix = f"criterion_{case}__"
    targets = [Target(units[f"{prefix}in_labels{i}"], units[f"{prefix}in_boxes{i}"]) for i in range(2)]
    predictions = Predictions(units[f"{prefix}in_pred_logits"][None], units[f"{prefix}in_pred_boxes"][None])
    criterion = build_criterion(LossSettings())
    losses = criterion(predictions, targets, float(max(1, sum(len(target.labels) for target in targets))))
    for row, name in enumerate(("loss_ce", "loss_bbox", "loss_giou")):
        assert losses.by_term()[row, 0].item() == pytest.approx(meta[f"criterion_{case}"][name], rel=1e-5)
    query_of, matched = criterion.matcher(predictions, PaddedTargets(targets, torch.device("cpu"), torch.float32))
    for image in range(2):
        queries, objects = units[f"{prefix}out_match{image}"]
        assert int(matched[0, image].sum()) == len(queries)
        assert query_of[0, image, objects].tolist() == queries.tolist()


def test_postprocess(units):
    classes = units["post_process__in_pred_logits"].shape[-1]
    categories = Categories(tuple(range(classes)), tuple(map(str, range(classes))))
    predictions = Predictions(units["post_process__in_pred_logits"][None], units["post_process__in_pred_boxes"][None])
    sizes = [(float(height), float(width)) for height, width in units["post_process__in_sizes"].tolist()]
    for i, found in enumerate(detections_from(predictions.last, sizes, categories)):
        close(found.scores, units["post_process__out_scores"][i])
        assert found.labels.tolist() == units["post_process__out_labels"][i].tolist()
        close(found.boxes, units["post_process__out_boxes"][i], atol=1e-3)
