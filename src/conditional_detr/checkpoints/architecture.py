"""From parameters to a network: what their shapes say, checked against what a file's settings say."""

import re
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from conditional_detr.checkpoints.checkpoint import load_strictly
from conditional_detr.checkpoints.state import State
from conditional_detr.config import RESNETS, ModelSettings
from conditional_detr.errors import InputError
from conditional_detr.model.network import DETR, build_model

_PUBLISHED = ModelSettings()


def build_from(
    state: State, declared: Mapping[str, Any], dilation: bool | None, source: Path
) -> tuple[DETR, ModelSettings]:
    """The network that a file's parameters belong to, with them in it.

    declared: ``ModelSettings`` fields that the file tells. dilation: what the user says, where the file does not.
    Raises ``InputError`` when the file contradicts itself or the user, lacks a parameter, or when nobody says whether
    the model is a DC5 one.
    """
    visible = _visible(state, source)
    for key, value in visible.items():
        if key in declared and declared[key] != value:
            raise InputError(
                f"{source}: its settings say {key}={reprlib.repr(declared[key])}, its weights have {value}; "
                f"give weights and settings that belong together"
            )
    settings = {"heads": _PUBLISHED.heads, "batch_norm": "frozen", "frozen_stages": 1, **declared, **visible}
    if "dilation" not in settings:
        if dilation is None:
            raise InputError(
                f"{source} does not say whether it is a DC5 model, and the weights look the same; "
                f"say --dc5 or --no-dc5 (in Python: dilation=True or False)"
            )
        settings["dilation"] = dilation
    elif dilation is not None and dilation != settings["dilation"]:
        kind = "a DC5 model" if settings["dilation"] else "no DC5 model"
        asked = "--dc5, model.dilation=true" if dilation else "--no-dc5, model.dilation=false"
        raise InputError(f"{source} is {kind} by its own account, but dilation={dilation} was asked for ({asked})")
    if "heads" not in declared and visible["channels"] != _PUBLISHED.channels:
        warnings.warn(
            f"{source} does not say how many attention heads it has; {_PUBLISHED.heads} is taken, as in published models",
            stacklevel=2,
        )
    try:
        resolved = ModelSettings.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1]) or "settings"
        raise InputError(
            f"{source}: {key}: {first['msg'].removeprefix('Value error, ')}, got {reprlib.repr(first['input'])}"
        ) from error
    classes = len(state.values["class_head.weight"]) - (resolved.classification == "softmax")
    if classes < 1:
        raise InputError(f"{source} has no classes; give weights of a detector")
    _check_size(resolved, classes, state, source)
    model = build_model(resolved, classes)
    load_strictly(model, state.values, source)
    return model, resolved


def _check_size(settings: ModelSettings, classes: int, state: State, source: Path) -> None:
    """Raise ``InputError`` when the network would be much larger than the file, whose single shapes can claim anything."""
    shape = settings.backbone_shape()
    layers = settings.encoder_layers + settings.decoder_layers
    least = layers * settings.channels * (settings.channels + settings.feed_forward)
    least += sum(depth * width**2 // 4 for depth, width in zip(shape.depths, shape.widths, strict=True))
    least += settings.channels * (settings.queries + classes + shape.widths[-1]) + shape.stem_width * 3 * 7 * 7
    if least > sum(value.numel() for value in state.values.values()):
        raise InputError(f"{source} holds fewer numbers than the network that it describes; give complete weights")


def _visible(state: State, source: Path) -> dict[str, Any]:
    """The settings that shapes and names tell. Raises ``InputError`` naming a parameter that is missing."""
    values = state.values
    try:
        feed_forward = next(len(values[name]) for name in values if name.endswith("feed_forward.linear1.weight"))
        return {
            "decoder": state.decoder,
            "backbone": _backbone(values),
            "channels": len(values["input_proj.weight"]),
            "feed_forward": feed_forward,
            "encoder_layers": _count(values, r"encoder\.layers\.(\d+)\."),
            "decoder_layers": _count(values, r"decoder\.layers\.(\d+)\."),
            "queries": len(values["decoder.query_position.weight"]),
        }
    except KeyError as error:
        raise InputError(f"{source}: {error.args[0]} is missing; give complete weights") from error
    except (StopIteration, IndexError, TypeError) as error:
        raise InputError(
            f"{source} lacks whole layers or has them in shapes of no DETR; give complete weights"
        ) from error


def _backbone(values: Mapping[str, Tensor]) -> str | dict[str, Any]:
    """A ResNet's name, or its shape."""
    stages = _count(values, r"backbone\.layer(\d+)\.")
    block = "bottleneck" if "backbone.layer1.0.conv3.weight" in values else "basic"
    last = "conv3" if block == "bottleneck" else "conv2"
    shape = {
        "block": block,
        "depths": [_count(values, rf"backbone\.layer{stage}\.(\d+)\.") for stage in range(1, stages + 1)],
        "widths": [len(values[f"backbone.layer{stage}.0.{last}.weight"]) for stage in range(1, stages + 1)],
        "stem_width": len(values["backbone.conv1.weight"]),
    }
    return named_resnet(shape)


def named_resnet(shape: dict[str, Any]) -> str | dict[str, Any]:
    """The name of a ResNet of this shape, or the shape."""
    return next((name for name, known in RESNETS.items() if known.model_dump(mode="json") == shape), shape)


def _count(values: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers the names have in the place of the group."""
    matches = (re.match(pattern, name) for name in values)
    return len({match[1] for match in matches if match})
