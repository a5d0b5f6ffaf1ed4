"""Networks of presets with random weights."""

from collections.abc import Sequence

import torch
from torch import nn

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.config import load_settings
from conditional_detr.errors import SettingsError
from conditional_detr.input_size import InputSize
from conditional_detr.model.network import build_model
from conditional_detr.record import Categories, ModelRecord

CLASSES = 91  # logits of the official code for COCO


def preset_checkpoint(preset: str, overrides: Sequence[str] = ()) -> Checkpoint:
    """Return the network of a preset with random weights, and with frozen batch norm as if they were pretrained.

    overrides: ``model.key=value`` settings. Raises ``SettingsError`` for other overrides.
    """
    for override in overrides:
        if not override.startswith("model."):
            raise SettingsError(f"{override!r}: only model.* settings have an effect here; leave it out")
    given = load_settings(preset, overrides)
    model = given.model
    if model.batch_norm == "auto" and isinstance(model.backbone, str):
        model = model.model_copy(update={"batch_norm": "frozen"})
    model = model.resolved()
    torch.manual_seed(0)
    categories = Categories(tuple(range(CLASSES)), tuple(f"class {i}" for i in range(CLASSES)))
    size = InputSize((given.data.eval_short_side, given.data.eval_max_size))
    network = build_model(model, CLASSES).eval()
    last = network.box_head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=0.1)  # the published value 0 would make all boxes equal and hide errors
    return Checkpoint(network, ModelRecord(model.architecture(), categories, size))
