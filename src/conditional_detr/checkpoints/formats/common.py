"""Helpers shared by the formats of programs that support the published networks only."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.errors import CheckpointError
from conditional_detr.files import whole_file
from conditional_detr.record import Architecture, InputSize

STANDARD_TEMPERATURE = Architecture().position_temperature


def about_input_size(checkpoint: Checkpoint, program: str) -> list[str]:
    """Return a remark if the image size must be set in ``program``, otherwise an empty list."""
    size = checkpoint.input_size
    if size == InputSize():
        return []
    return [
        f"the model was made for images of {size.sides} pixels ({size.rule}): set {program}'s preprocessing to that"
    ]


def check_published_network(checkpoint: Checkpoint, program: str) -> None:
    """Raise ``CheckpointError`` when ``program`` would compute another network, because it has the published ones only."""
    architecture = checkpoint.architecture
    published = "sigmoid" if architecture.decoder == "conditional" else "softmax"
    named = isinstance(architecture.backbone, str)
    different = {
        "a backbone of its own shape": not named,
        f"the backbone {architecture.backbone}": named and architecture.backbone_family != "resnet",
        f"position_temperature={architecture.position_temperature:g}": architecture.position_temperature
        != STANDARD_TEMPERATURE,
        f"{architecture.classification} classification": architecture.classification != published,
        "norm_between_layers": architecture.norm_between_layers,
        "boxes relative to the padded image": checkpoint.input_size.boxes != "image",
    }
    for what, is_different in different.items():
        if is_different:
            raise CheckpointError(
                f"{program} does not have {what}, so it can't open this model; convert to huggingface instead"
            )


def check_file(out: Path, to: str, timm_backbone: bool | None) -> None:
    """Raise ``CheckpointError`` when a ``.pth`` file can't be written to this path or with these options."""
    if timm_backbone is not None:
        raise CheckpointError(
            f"timm's names for the backbone exist in huggingface only, not in {to}; leave them out",
            argument="timm_backbone",
        )
    if out.is_dir() or not out.suffix:
        raise CheckpointError(f"{out} names a folder, but the {to} format is a file; name it {out}.pth")


def write_pth(out: Path, content: Mapping[str, Any]) -> None:
    """Write a ``.pth`` file completely or not at all. Raises ``OSError`` on a full disk."""
    memory = io.BytesIO()  # torch.save would report a full disk as an internal error of its own
    torch.save(content, memory)
    with whole_file(out) as partial:
        partial.write_bytes(memory.getbuffer())
