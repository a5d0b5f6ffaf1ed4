"""Models for checkpoints, in which every parameter and buffer differs from its initial value."""

import torch
from torch import nn

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats import FORMATS, load
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.config import ModelSettings
from conditional_detr.data.shapes import SHAPES
from conditional_detr.input_size import InputSize
from conditional_detr.model.network import build_model
from conditional_detr.record import Categories, ModelRecord

SMALL = {"channels": 64, "heads": 4, "feed_forward": 96, "encoder_layers": 1, "decoder_layers": 2, "queries": 9}


def randomized(settings: ModelSettings, categories: Categories = SHAPES, size: InputSize | None = None) -> Checkpoint:
    torch.manual_seed(0)
    model = build_model(settings, len(categories))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 1.0 if parameter.mean() > 0.5 else 0.0, 0.1)
    nn.init.normal_(model.box_head.layers[-1].weight, std=0.1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return Checkpoint(model.eval(), ModelRecord(settings.architecture(), categories, size or InputSize((96, 128))))


def save_checkpoint(checkpoint: Checkpoint, folder, timm_backbone: bool | None = None):
    return load("huggingface").write(checkpoint, folder, timm_backbone)


load_checkpoint = open_checkpoint
LAYOUTS = {layout.name: layout for name in FORMATS for layout in load(name).LAYOUTS}


def small(decoder: str = "conditional", backbone: str = "resnet18", **changes) -> ModelSettings:
    """Return settings of a small network that every format supports."""
    values = {"decoder": decoder, "backbone": backbone, "batch_norm": "frozen", "frozen_stages": 1, **SMALL, **changes}
    return ModelSettings.model_validate(values)
