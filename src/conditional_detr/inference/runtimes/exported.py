"""What the runtimes of exported models share."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from conditional_detr.errors import CheckpointError
from conditional_detr.exports import ExportRecord
from conditional_detr.inference.runtimes import Runtime
from conditional_detr.record import ModelRecord
from conditional_detr.structures import Outputs


class Exported(NamedTuple):
    """An exported model that is ready to run. device: where it computes. file: the file it was read from."""

    record: ModelRecord
    runtime: Runtime
    device: torch.device
    file: Path


def check_outputs(file: Path, export: ExportRecord, logits: int, queries: int) -> None:
    """Raise ``CheckpointError`` when a graph has other numbers of logits and queries than its record says."""
    expected = export.model.architecture.logits(len(export.model.categories)), export.model.architecture.queries
    if (logits, queries) != expected:
        raise CheckpointError(
            f"{file} has {logits} logits for {queries} queries, but its record says {expected[0]} for {expected[1]}; export the "
            f"model again"
        )


Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def run_export(
    run: Run,
    export: ExportRecord,
    pixels: Float[Tensor, "batch 3 height width"],
    padding_mask: Bool[Tensor, "batch height width"] | None,
) -> Outputs:
    """Run an exported graph, with padding up to the sizes that it has fixed.

    run: computes logits and boxes from pixels and mask, on the CPU.
    """
    pixels = pixels.cpu()
    count, _, height, width = pixels.shape
    mask = torch.zeros(count, height, width, dtype=torch.bool) if padding_mask is None else padding_mask.cpu()
    if export.batch is None:
        return Outputs(*run(pixels, mask))
    parts: list[tuple[Tensor, Tensor]] = []
    for some, theirs in zip(pixels.split(export.batch), mask.split(export.batch), strict=True):
        missing = export.batch - len(some)
        padded = functional.pad(some, (0, 0) * 3 + (0, missing)), functional.pad(theirs, (0, 0) * 2 + (0, missing))
        logits, boxes = run(*padded)
        parts.append((logits[: len(some)], boxes[: len(some)]))
    return Outputs(torch.cat([logits for logits, _ in parts]), torch.cat([boxes for _, boxes in parts]))
