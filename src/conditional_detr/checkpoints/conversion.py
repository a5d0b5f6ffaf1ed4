"""From one format to another, with an account of every tensor."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from conditional_detr.checkpoints.checkpoint import Checkpoint, Format
from conditional_detr.checkpoints.huggingface import save_checkpoint
from conditional_detr.checkpoints.mmdetection import save_mmdetection
from conditional_detr.checkpoints.official import save_official
from conditional_detr.errors import InputError


class Row(NamedTuple):
    """Tensors of the source that became tensors of the target, or nothing.

    Layer numbers are written as N, and the parameters of a module (weight, bias, statistics) as *.
    """

    source: str
    target: str
    tensors: int
    what: str


def convert(
    checkpoint: Checkpoint, out: Path, to: Format, timm_backbone: bool | None = None
) -> tuple[list[Row], list[str]]:
    """Write a checkpoint in another format: a folder for huggingface, else a ``.pth`` file.

    timm_backbone: as in ``save_checkpoint``. Returns what became of every tensor, and remarks. Raises ``InputError`` when
    ``out`` exists, or when the format's programs do not have such a network.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists; remove it or choose another place")
    if timm_backbone is not None and to != "huggingface":
        raise InputError(f"a backbone with timm's names exists for huggingface only, not for {to}; leave it out")
    if to == "huggingface":
        written = save_checkpoint(checkpoint, out, timm_backbone)
    else:
        if out.is_dir() or not out.suffix:
            raise InputError(f"{out} names a folder, but {to} is a file; call it {out}.pth")
        written = save_official(checkpoint, out) if to == "official" else save_mmdetection(checkpoint, out)
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
    """One name for all that differ in layer and parameter; of a packed projection, the three letters in braces."""
    first = re.sub(r"(?<=coder\.layers\.)\d+|(?<=stages\.)\d+|(?<=\d\.layers\.)\d+|(?<=layer)\d+\.\d+", "N", names[0])
    first = re.sub(r"(?<=[._])(weight|bias|running_mean|running_var)$", "*", first)
    if len(names) > 1:
        letters = ",".join(match[1] for match in (re.search(r"\.([qkv])_proj", name) for name in names) if match)
        first = re.sub(r"\.[qkv]_proj", f".{{{letters}}}_proj", first)
    return first
