"""Helpers shared by the formats of programs that support the published networks only."""

import argparse
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from conditional_detr.architecture import Architecture
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.errors import CheckpointError
from conditional_detr.files import whole_file
from conditional_detr.input_size import InputSize

STANDARD_TEMPERATURE = Architecture().position_temperature
_DEEPEST = 20  # levels of settings


def plain_settings(values: object) -> dict[str, Any]:
    """Return the entries of a mapping or Namespace out of a pickle, so that they can be compared and checked like JSON.

    Entries that are not text, numbers of 64 bits, None, lists or mappings of such, and entries nested too deeply, are left out.
    """
    if isinstance(values, argparse.Namespace):
        values = vars(values)
    found = _plain(values, _DEEPEST)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _plain(value: object, levels: int) -> object:
    """Return a copy of a value; ``...`` for one that is left out."""
    if value is None or type(value) in (str, float, bool) or (type(value) is int and abs(value) < 2**63):
        return value
    if levels == 0:
        return ...
    if isinstance(value, Mapping):
        given = cast("Mapping[object, object]", value)
        pairs = {key: _plain(each, levels - 1) for key, each in given.items() if isinstance(key, str)}
        return {key: each for key, each in pairs.items() if each is not ...}
    if isinstance(value, (list, tuple)):
        items = [_plain(each, levels - 1) for each in cast("list[object]", value)]
        return [each for each in items if each is not ...]
    return ...


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
