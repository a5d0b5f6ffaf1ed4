"""Load the weights, images and targets of a reference file into our network."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conditional_detr.config import LossSettings, ModelSettings
from conditional_detr.loss.criterion import Criterion, build_criterion
from conditional_detr.model.network import DETR, build_model
from conditional_detr.structures import ImageBatch, Predictions, Target
from tests.checkpoints.models import LAYOUTS
from tests.conftest import SHARED

NAMES = ["conddetr_small", "conddetr_r50", "conddetr_r50_dc5", "conddetr_r101", "conddetr_r101_dc5", "detr_r50"]


@dataclass
class Reference:
    name: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    model: DETR
    official: dict[str, str]  # our parameter names -> those of the official code
    batch: ImageBatch
    rule: Any

    def targets(self, case: str) -> list[Target]:
        made = self.rule.make_targets(self.meta["cases"][case]["counts"], 91, self.meta["seed"], tag=f"target/{case}")
        return [Target(torch.from_numpy(t["labels"]), torch.from_numpy(t["boxes"])) for t in made]

    def probe(self, name: str, values: np.ndarray) -> float:
        return float((values * self.rule.make_probe(name, values.shape, self.meta["seed"])).sum())


def load_reference(name: str, rule: Any) -> Reference:
    folder = SHARED / "reference"
    meta = json.loads((folder / f"{name}.json").read_text())
    given = meta["hyperparameters"]
    decoder = "detr" if meta["implementation"] == "detr" else "conditional"
    settings = ModelSettings(
        decoder=decoder,
        backbone=given["backbone"],
        dilation=given["dilation"],
        channels=given["hidden_dim"],
        heads=given["nheads"],
        feed_forward=given["dim_feedforward"],
        encoder_layers=given["enc_layers"],
        decoder_layers=given["dec_layers"],
        queries=given["num_queries"],
        dropout=given["dropout"],
        batch_norm="frozen",
    )
    model = build_model(settings, meta["num_classes"])
    assert model.class_head.out_features == meta["logit_width"]
    model.backbone.freeze(1)
    shapes = json.loads((folder / "keys" / f"official_{name}.json").read_text())
    weights = rule.make_weights(shapes, meta["seed"])
    assert rule.checksum_all(weights) == meta["weights_crc32"]
    official = {key: LAYOUTS["official"].names(decoder, key)[0] for key in model.state_dict()}
    assert set(official.values()) == set(weights)
    model.load_state_dict({key: torch.from_numpy(weights[name]) for key, name in official.items()})

    images = [rule.make_image(i, h, w, meta["seed"]) for i, (h, w) in enumerate(meta["image_sizes"])]
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    pixels = torch.zeros(len(images), 3, height, width)
    mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for i, image in enumerate(images):
        pixels[i, :, : image.shape[1], : image.shape[2]] = torch.from_numpy(image)
        mask[i, : image.shape[1], : image.shape[2]] = False
    arrays = dict(np.load(folder / f"{name}.npz"))
    return Reference(name, meta, arrays, model, official, ImageBatch(pixels, mask), rule)


def outputs(reference: Reference, dtype: torch.dtype) -> Predictions:
    model = reference.model.to(dtype).eval()  # reference files have dropout 0 and frozen batch norm
    return model(reference.batch.pixels.to(dtype), reference.batch.padding_mask)


def criterion_of(reference: Reference) -> Criterion:
    # The official code keeps this weight in float32 even when it computes in float64.
    settings = LossSettings(no_object_weight=float(np.float32(0.1)))
    return build_criterion(settings, reference.model.softmax)


def boxes_of(targets) -> float:
    return float(max(1, sum(len(target.labels) for target in targets)))
