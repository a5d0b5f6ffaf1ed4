"""Convert checkpoints between formats and report what became of every tensor."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats import FORMATS, load
from conditional_detr.errors import CheckpointError


class Row(NamedTuple):
    """Tensors of the source that became tensors of the target, or were dropped (empty target).

    Layer numbers are written as N, and the parameters and buffers of a module as *.
    """

    source: str
    target: str
    tensors: int
    what: str


def convert(
    checkpoint: Checkpoint, out: Path, to: str, timm_backbone: bool | None = None
) -> tuple[list[Row], list[str]]:
    """Write a checkpoint in another format. to: one of ``FORMATS``.

    timm_backbone: use timm's names for the backbone (huggingface only). Returns what became of every tensor, and remarks.
    Raises ``CheckpointError`` when ``out`` exists, or when programs of the format do not support the network.
    """
    if to not in FORMATS:
        raise CheckpointError(f"unknown format {to!r}; give one of {', '.join(FORMATS)}")
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists; remove it or choose another place")
    try:
        written = load(to).write(checkpoint, out, timm_backbone)
    except BaseException:  # a part of a checkpoint would be in the way of the next try
        for file in out.glob("*"):
            file.unlink()
        raise
    origin = checkpoint.origin
    read = {name: [name] for name in written.names} if origin is None else origin.names
    counts: Counter[tuple[str, str, str]] = Counter()
    for ours, targets in written.names.items():
        sources = read[ours]
        if len(sources) != len(targets):
            what = f"{len(sources)} joined" if len(sources) > 1 else f"split in {len(targets)}"
        else:
            what = "same name" if sources == targets else "renamed"
        counts[_row_name(sources), _row_name(targets), what] += 1
    for name, why in ({} if origin is None else origin.left_out).items():
        counts[_row_name([name]), "", f"dropped: {why}"] += 1
    return [Row(source, target, tensors, what) for (source, target, what), tensors in counts.items()], written.remarks


def _row_name(names: list[str]) -> str:
    """Return one name for names that differ in layer and parameter only.

    The three letters of a split projection are written in braces.
    """
    first = re.sub(r"(?<=coder\.layers\.)\d+|(?<=stages\.)\d+|(?<=\d\.layers\.)\d+|(?<=layer)\d+\.\d+", "N", names[0])
    first = re.sub(r"(?<=[._])(weight|bias|running_mean|running_var)$", "*", first)
    if len(names) > 1:
        letters = ",".join(match[1] for match in (re.search(r"\.([qkv])_proj", name) for name in names) if match)
        first = re.sub(r"\.[qkv]_proj", f".{{{letters}}}_proj", first)
    return first
