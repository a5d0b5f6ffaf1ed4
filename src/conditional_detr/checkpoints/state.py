"""Rename parameters from the names of a file to ours, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from conditional_detr.checkpoints.checkpoint import COUNTER, State
from conditional_detr.checkpoints.formats import FORMATS, load
from conditional_detr.checkpoints.names import Decoder, Layout, recognize
from conditional_detr.errors import CheckpointError


def read_state(given: Mapping[str, Tensor], source: object) -> State:
    """Recognize the layout of a file's parameters and give them our names.

    Raises ``CheckpointError`` when they are not those of a (Conditional) DETR, or when one is unknown, incomplete, empty, not
    of a floating-point type, NaN or infinite.
    """
    given = _without_prefix(given)
    format_of = {layout: name for name in FORMATS for layout in load(name).LAYOUTS}
    layout, decoder = recognize(given, format_of)
    parts: dict[str, list[tuple[str, Tensor] | None]] = {}
    left_out: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in given.items():
        part = layout.ours(decoder, name)
        if name.endswith(COUNTER):
            left_out[name] = "unused counter of batch norm"
        elif part is None:
            unknown.append(name)
        elif not value.is_floating_point():
            raise CheckpointError(f"{source}: {name} holds {value.dtype} instead of floating-point numbers")
        else:
            parts.setdefault(part.ours, [None] * part.parts)[part.part] = name, value
        if not value.numel():
            raise CheckpointError(f"{source}: {name} is empty, of shape {list(value.shape)}; give complete weights")
    if "class_head.weight" not in parts or "decoder.query_position.weight" not in parts:
        first = next(iter(given), "nothing")
        if any(name.startswith(("detr.", "mask_head.", "bbox_attention.")) for name in given):
            raise CheckpointError(f"{source} is a segmentation model of DETR, which is not supported; give a detector")
        raise CheckpointError(
            f"{source} holds no weights of Conditional DETR or DETR (its first entry is {first}); give a checkpoint of one of them"
        )
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise CheckpointError(
            f"{source}: {unknown[0]} is not part of a {'Conditional DETR' if decoder == 'conditional' else 'DETR'}{more}; "
            f"give weights of a detector of this architecture, without masks or other additions"
        )
    values: dict[str, Tensor] = {}
    names: dict[str, list[str]] = {}
    for ours, found in parts.items():
        whole = [each for each in found if each is not None]
        if len(whole) < len(found):
            missing = layout.names(decoder, ours)[found.index(None)]
            raise CheckpointError(f"{source}: {missing} is missing; give complete weights")
        try:
            value = torch.cat([value for _, value in whole]) if len(whole) > 1 else whole[0][1]
        except RuntimeError as error:
            raise CheckpointError(f"{source}: {whole[0][0]} and its other parts have different shapes") from error
        values[ours] = value.detach().float()
        if not bool(values[ours].isfinite().all()):
            raise CheckpointError(
                f"{source}: {whole[0][0]} holds NaN or infinity, so the model can't find anything; give weights from before "
                f"training diverged"
            )
        names[ours] = [name for name, _ in whole]
    return State(_with_own_memory(values), format_of[layout], layout, decoder, names, left_out)


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


def _without_prefix(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Remove the prefixes that distributed training, Lightning and ``torch.compile`` add to every name."""
    for prefix in ("module.", "model.", "_orig_mod."):
        inner = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
        if given and len(inner) == len(given):
            return _without_prefix(inner)
    return given


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
