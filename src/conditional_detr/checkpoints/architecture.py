"""Build a network from parameters. Its settings are read from their shapes and checked against those of the file."""

import re
import reprlib
import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from conditional_detr.checkpoints.checkpoint import Checkpoint, Origin, Parsed, State, load_strictly
from conditional_detr.errors import CheckpointError
from conditional_detr.model.backbones import families
from conditional_detr.model.network import describe_network
from conditional_detr.record import Architecture, ModelRecord

_PUBLISHED = Architecture()


def build_checkpoint(parsed: Parsed, dilation: bool | None, source: object) -> Checkpoint:
    """Build the network of a file's parameters and load them.

    dilation: True for a DC5 model, for files that do not say so themselves. Raises ``CheckpointError`` when the file
    contradicts itself or ``dilation``, when a parameter is missing, or when neither says whether it is a DC5 model.
    """
    state = parsed.state
    architecture = _architecture(state, parsed.declared, dilation, source)
    classes = architecture.classes(len(state.values["class_head.weight"]))
    if classes < 1:
        raise CheckpointError(f"{source} has no classes; give weights of a detector")
    if len(parsed.categories) != classes:
        raise CheckpointError(f"{source} names {len(parsed.categories)} classes, but its class head has {classes}")
    model = describe_network(architecture, classes)
    load_strictly(model, state.values, source)
    origin = Origin(parsed.format, state.layout.name, state.names, parsed.left_out)
    return Checkpoint(model.eval(), ModelRecord(architecture, parsed.categories, parsed.input_size), origin)


def _architecture(state: State, declared: Mapping[str, Any], dilation: bool | None, source: object) -> Architecture:
    visible = _visible(state, source)
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


def _visible(state: State, source: object) -> dict[str, Any]:
    """Read settings from the shapes and names of parameters. Raises ``CheckpointError`` naming a missing parameter."""
    values = state.values
    backbone = {name.removeprefix("backbone."): value for name, value in values.items() if name.startswith("backbone.")}
    try:
        feed_forward = next(len(values[name]) for name in values if name.endswith("feed_forward.linear1.weight"))
        recognized = (family.recognize(backbone) for family in families())
        return {
            "decoder": state.decoder,
            "backbone": next(found for found in recognized if found is not None),
            "channels": len(values["input_proj.weight"]),
            "feed_forward": feed_forward,
            "encoder_layers": _count(values, r"encoder\.layers\.(\d+)\."),
            "decoder_layers": _count(values, r"decoder\.layers\.(\d+)\."),
            "queries": len(values["decoder.query_position.weight"]),
        }
    except KeyError as error:
        raise CheckpointError(f"{source}: {error.args[0]} is missing; give complete weights") from error
    except (StopIteration, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{source} lacks whole layers, or their shapes are not those of a DETR; give complete weights"
        ) from error


def _count(values: Mapping[str, Any], pattern: str) -> int:
    """Count the distinct numbers that the group of ``pattern`` matches in the names."""
    matches = (re.match(pattern, name) for name in values)
    return len({match[1] for match in matches if match})
