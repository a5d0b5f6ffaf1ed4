"""Build a network from parameters. Its settings are read from their shapes and checked against those of the file."""

import re
import reprlib
import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from pydantic import ValidationError

from conditional_detr.architecture import Architecture, backbone_names
from conditional_detr.checkpoints.checkpoint import HEAD, Checkpoint, Origin, Parsed, State, load_strictly
from conditional_detr.errors import CheckpointError
from conditional_detr.model.backbones import families
from conditional_detr.model.network import describe_network
from conditional_detr.record import ModelRecord

_PUBLISHED = Architecture()
_FIRST_LAYER = "decoder.layers.0.feed_forward.linear1.weight"


def build_checkpoint(parsed: Parsed, dilation: bool | None, source: object, headless: bool = False) -> Checkpoint:
    """Build the network of a file's parameters and load them.

    dilation: True for a DC5 model, for files that do not say so themselves. headless: accept weights without a class head; the
    checkpoint has no categories then. Raises ``CheckpointError`` when the file contradicts itself or ``dilation``, when a
    parameter is missing, or when neither says whether it is a DC5 model.
    """
    state = parsed.state
    visible = _visible(state, parsed.declared.get("backbone"), source)
    if not state.has_head and not headless:
        raise CheckpointError(
            f"{source}: {state.name(HEAD[0]).removesuffix('.weight')} is missing, the class head; train a new one with "
            f"model.init_from, or give complete weights"
        )
    architecture = _architecture(visible, parsed.declared, dilation, source)
    classes = state.classes(architecture.softmax)
    if classes < 1 and state.has_head:
        raise CheckpointError(f"{source} has no classes; give weights of a detector")
    if len(parsed.categories) != classes:
        raise CheckpointError(f"{source} names {len(parsed.categories)} classes, but its class head has {classes}")
    values = state.values
    if not state.has_head:
        rows = architecture.logits(0)
        values = values | {HEAD[0]: torch.zeros(rows, architecture.channels), HEAD[1]: torch.zeros(rows)}
    model = describe_network(architecture, classes)
    load_strictly(model, values, source, state.name)
    model.backbone.compute_buffers()
    origin = Origin(state.format, state.layout.name, state.names, parsed.left_out)
    record = ModelRecord(architecture, parsed.categories, parsed.input_size, parsed.thresholds)
    return Checkpoint(model.eval(), record, origin)


def _architecture(
    visible: Mapping[str, Any], declared: Mapping[str, Any], dilation: bool | None, source: object
) -> Architecture:
    for key, value in visible.items():
        if key in declared and declared[key] != value:
            raise CheckpointError(
                f"{source}: its settings say {key}={reprlib.repr(declared[key])}, its weights have {value}; "
                f"give weights and settings that belong together"
            )
    settings = {"heads": _PUBLISHED.heads, **declared, **visible}
    if "dilation" not in settings:
        if dilation is None:
            raise CheckpointError(
                f"{source} does not say whether it is a DC5 model, and the weights look the same; "
                f"give dilation=True or dilation=False",
                argument="dilation",
            )
        settings["dilation"] = dilation
    elif dilation is not None and dilation != settings["dilation"]:
        kind = "a DC5 model" if settings["dilation"] else "no DC5 model"
        raise CheckpointError(
            f"{source} is recorded as {kind}, but dilation={dilation} was given; leave it out", argument="dilation"
        )
    if "heads" not in declared and visible["channels"] != _PUBLISHED.channels:
        warnings.warn(
            f"{source} does not say how many attention heads it has; {_PUBLISHED.heads} are assumed, as in published models",
            stacklevel=2,
        )
    try:
        return Architecture.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1]) or "settings"
        raise CheckpointError(
            f"{source}: {key}: {first['msg'].removeprefix('Value error, ')}, got {reprlib.repr(first['input'])}"
        ) from error


def _visible(state: State, declared: object, source: object) -> dict[str, Any]:
    """Read settings from the shapes and names of parameters. Raises ``CheckpointError`` naming what is missing.

    declared: backbone in the settings of the file, which is all there is to a backbone of transformers.
    """
    values = state.values
    backbone = {name.removeprefix("backbone."): value for name, value in values.items() if name.startswith("backbone.")}
    layers = _count(values, r"decoder\.layers\.(\d+)\.")
    hidden = next((name for name in values if name.endswith("feed_forward.linear1.weight")), None)
    needed = ["input_proj.weight", "decoder.query_position.weight", hidden or _FIRST_LAYER]
    missing = [state.name(name) for name in needed if name not in values]
    if not backbone:
        missing.append(f"{state.prefix}{state.layout.backbone}*")
    if missing or not layers:
        first = missing[0] if missing else state.name(_FIRST_LAYER)
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise CheckpointError(f"{source}: {first} is missing{more}; give complete weights")
    try:
        recognized = (family.recognize(backbone) for family in families())
        configured = isinstance(declared, dict) and "model_type" in declared
        return {
            "decoder": state.decoder,
            "backbone": declared if configured else next(found for found in recognized if found is not None),
            "channels": len(values["input_proj.weight"]),
            "feed_forward": len(values[cast(str, hidden)]),
            "encoder_layers": _count(values, r"encoder\.layers\.(\d+)\."),
            "decoder_layers": layers,
            "queries": len(values["decoder.query_position.weight"]),
        }
    except KeyError as error:
        raise CheckpointError(
            f"{source}: {state.name(f'backbone.{error.args[0]}')} is missing; give complete weights"
        ) from error
    except StopIteration as error:
        known = ", ".join(backbone_names())
        raise CheckpointError(
            f"{source}: its backbone is none of {known}, or is not complete; give complete weights of one"
        ) from error


def _count(values: Mapping[str, Any], pattern: str) -> int:
    """Count the distinct numbers that the group of ``pattern`` matches in the names."""
    matches = (re.match(pattern, name) for name in values)
    return len({match[1] for match in matches if match})
