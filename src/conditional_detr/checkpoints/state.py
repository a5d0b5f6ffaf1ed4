"""Rename parameters from the names of a file to ours, and back."""

import logging
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from conditional_detr.checkpoints.checkpoint import COUNTER, HEAD, State
from conditional_detr.checkpoints.contents import (
    Weights,
    beside,
    choose,
    endings,
    find_weights,
    mappings,
    partly_prefixed,
)
from conditional_detr.checkpoints.foreign import SEGMENTATION, described
from conditional_detr.checkpoints.formats import FORMATS, load
from conditional_detr.checkpoints.names import Decoder, Layout, recognize
from conditional_detr.errors import CheckpointError

logger = logging.getLogger(__name__)


def read_state(content: Mapping[Any, Any], source: object) -> State:
    """Find the weights in the content of a file, recognize their layout and give them our names.

    Raises ``CheckpointError`` when there are none of a (Conditional) DETR or of several models, or when one is unknown,
    incomplete, empty, not of a floating-point type, NaN or infinite. Missing weights are left to ``build_checkpoint``.
    """
    format_of = {layout: name for name in FORMATS for layout in load(name).LAYOUTS}
    weights, others = _choose(content, format_of, source)
    layout, decoder = recognize(weights.entries, format_of)
    parts, left_out = _renamed(weights, layout, decoder, source)
    left_out |= {each.key_beside(weights): f"other weights; {weights.label!r} was taken" for each in others}
    values: dict[str, Tensor] = {}
    names: dict[str, list[str]] = {}
    for ours, found in parts.items():
        whole = [each for each in found if each is not None]
        if len(whole) < len(found):
            missing = weights.prefix + layout.names(decoder, ours)[found.index(None)]
            raise CheckpointError(f"{source}: {missing} is missing; give complete weights")
        try:
            value = torch.cat([value for _, value in whole]) if len(whole) > 1 else whole[0][1]
        except RuntimeError as error:
            raise CheckpointError(f"{source}: {whole[0][0]} and its other parts have different shapes") from error
        values[ours] = value.detach().float()
        check_numbers(values[ours], whole[0][0], source)
        names[ours] = [name for name, _ in whole]
    return State(
        values=_with_own_memory(values),
        format=format_of[layout],
        layout=layout,
        decoder=decoder,
        prefix=weights.prefix,
        names=names,
        rest=beside(content, weights.path),
        left_out=left_out,
    )


def check_numbers(value: Tensor, name: str, source: object) -> None:
    """Raise ``CheckpointError`` naming a tensor that holds NaN, infinity or a negative variance."""
    if name.endswith("running_var") and bool((value < 0).any()):
        raise CheckpointError(f"{source}: {name} holds negative variances; give weights that are not damaged")
    if not bool(value.isfinite().all()):
        raise CheckpointError(
            f"{source}: {name} holds NaN or infinity, so the model can't find anything; give weights from before training diverged"
        )


def _choose(
    content: Mapping[Any, Any], format_of: Mapping[Layout, str], source: object
) -> tuple[Weights, list[Weights]]:
    """Return the weights to read, and the others in the file."""
    anchors = {
        f"{module}.{parameter}"
        for layout in format_of
        for module in layout.modules.values()
        for parameter in ("weight", "bias")
    }
    sets = find_weights(content, anchors, source)
    if len(sets) == 1:
        return sets[0], []
    names = _names_of_tensors(content)
    if what := described(names):
        raise CheckpointError(f"{source} {what}")
    if not sets:
        found = f"its tensors are {_some(names)}" if names else f"without tensors, its entries are {_some(content)}"
        raise CheckpointError(
            f"{source} holds no weights of Conditional DETR or DETR ({found}); give a checkpoint of one of them"
        )
    layout, decoder = recognize(max(sets, key=lambda each: len(each.entries)).entries, format_of)
    known = [{name for name in each.entries if layout.ours(decoder, name) and COUNTER not in name} for each in sets]
    # For example, averages of the trained parameters alone are not complete.
    complete = [each for each, names in zip(sets, known, strict=True) if not any(names < more for more in known)]
    # When mmengine saves averaged weights, it swaps the two: state_dict gets the averaged ones. Lightning renames the others.
    plain = {"current_model_state", *(["ema_state_dict"] if format_of[layout] == "mmdetection" else [])}
    weights = choose(complete, plain, source)
    others = [each for each in sets if each is not weights]
    averaged = weights.averaged or any(plain & set(each.path) for each in others)
    what = "the averaged weights " if averaged else ""
    logger.info(f"{source}: took {what}{weights.label!r}, not {', '.join(repr(each.label[:60]) for each in others)}")
    return weights, others


def _renamed(
    weights: Weights, layout: Layout, decoder: Decoder, source: object
) -> tuple[dict[str, list[tuple[str, Tensor] | None]], dict[str, str]]:
    """Return our names -> the parts of a parameter, and entries that were left out -> why."""
    parts: dict[str, list[tuple[str, Tensor] | None]] = {}
    left_out: dict[str, str] = {}
    unknown: list[str] = []
    for short, (name, value) in weights.entries.items():
        part = layout.ours(decoder, short)
        if short.endswith(COUNTER):
            left_out[name] = "unused counter of batch norm"
        elif part is None:
            if isinstance(value, Tensor):
                unknown.append(name)
        elif not isinstance(value, Tensor):
            raise CheckpointError(
                f"{source}: {name} is no tensor, but of type {type(value).__name__}; give complete weights"
            )
        elif not value.is_floating_point():
            raise CheckpointError(f"{source}: {name} holds {value.dtype} instead of floating-point numbers")
        elif not value.numel() or not value.dim():
            what = "is empty, of shape" if value.dim() else "is a single number, of shape"
            raise CheckpointError(f"{source}: {name} {what} {list(value.shape)}; give complete weights")
        else:
            parts.setdefault(part.ours, [None] * part.parts)[part.part] = name, value
    _check_unknown(unknown, weights, layout, decoder, source)
    left_out |= dict.fromkeys(weights.outside, f"not under {weights.prefix!r}")
    if any(missing := [name not in parts for name in HEAD]) and not all(missing):
        ours = HEAD[missing.index(True)]
        name = weights.prefix + layout.names(decoder, ours)[0]
        raise CheckpointError(f"{source}: {name} is missing; give complete weights")
    return parts, left_out


def _check_unknown(unknown: list[str], weights: Weights, layout: Layout, decoder: Decoder, source: object) -> None:
    """Raise ``CheckpointError`` for names that are not part of the network, and for a prefix that only some names have."""
    if what := described([*unknown, *(name for name in weights.outside if re.search(SEGMENTATION, name))]):
        raise CheckpointError(f"{source} {what}")
    strange = set(unknown)
    for name in (*unknown, *weights.outside):
        known = next((end for end in endings(name) if layout.ours(decoder, end) is not None), None)
        if known is None or known in weights.entries:
            continue
        inside = [found for found, _ in weights.entries.values() if found not in strange]
        if known == name:
            raise partly_prefixed(weights.prefix, inside, name, source)
        prefix = name.removesuffix(known)
        raise partly_prefixed(
            prefix, [each for each in strange if each.startswith(prefix)] or [name], inside[0], source
        )
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise CheckpointError(
            f"{source}: {unknown[0]} is not part of a {'Conditional DETR' if decoder == 'conditional' else 'DETR'}{more}; "
            f"give weights of a detector of this architecture, without masks or other additions"
        )


def _names_of_tensors(content: Mapping[Any, Any]) -> list[str]:
    """Return the names of all tensors in a file, without the keys that they lie under."""
    return [
        name
        for _, mapping in mappings(content)
        for name, value in mapping.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    ]


def _some(names: Iterable[object]) -> str:
    """Return the first names, shortened, and how many more there are."""
    first = [reprlib.repr(name) for name in names]
    return ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")


def _with_own_memory(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory with others, so that training one does not change the others."""
    owners: dict[int, int] = {}
    for value in values.values():
        address = value.untyped_storage().data_ptr()
        owners[address] = owners.get(address, 0) + 1
    return {
        name: value
        if owners[value.untyped_storage().data_ptr()] == 1 and value.is_contiguous()
        else value.clone(memory_format=torch.contiguous_format)
        for name, value in values.items()
    }


def write_state(
    state: Mapping[str, Tensor], layout: Layout, decoder: Decoder
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Return our parameters under the names of a layout, and the map from our names to those.

    The returned tensors are float32, contiguous and on the CPU.
    """
    values: dict[str, Tensor] = {}
    names: dict[str, list[str]] = {}
    for ours, value in state.items():
        if ours.endswith(COUNTER):
            continue
        names[ours] = layout.names(decoder, ours)
        value = value.detach().cpu().float()
        for name, part in zip(names[ours], value.chunk(len(names[ours])), strict=True):
            values[name] = part.clone(memory_format=torch.contiguous_format)
    return values, names
