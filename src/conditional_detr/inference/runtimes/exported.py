"""What the runtimes of exported models share."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from conditional_detr.errors import CheckpointError
from conditional_detr.exports import MASK, PIXELS, RAW, ExportRecord
from conditional_detr.inference.runtimes import Runtime
from conditional_detr.record import ModelRecord
from conditional_detr.structures import Outputs


class Exported(NamedTuple):
    """An exported model that is ready to run. device: where it computes. file: the file it was read from."""

    record: ModelRecord
    runtime: Runtime
    device: torch.device
    file: Path


Shape = Sequence[int | None]  # None where any number will do


def check_graph(file: Path, export: ExportRecord, shapes: Mapping[str, Shape]) -> None:
    """Raise ``CheckpointError`` when inputs or outputs of a graph are not those that its record says. shapes: by name.

    A graph may leave open what its record fixes, but not the other way round.
    """
    architecture = export.model.architecture
    queries, logits = architecture.queries, architecture.logits(len(export.model.categories))
    batch, (height, width) = export.batch, export.size or (None, None)
    expected: dict[str, Shape] = {
        PIXELS: (batch, 3, height, width),
        MASK: (batch, height, width),
        RAW[0]: (batch, queries, logits),
        RAW[1]: (batch, queries, 4),
    }
    for name, shape in expected.items():
        found = shapes.get(name)
        if (
            found is None
            or len(found) != len(shape)
            or any(b not in (None, a) for a, b in zip(shape, found, strict=True))
        ):
            has = "is not there" if found is None else f"is {_shown(found)}"
            raise CheckpointError(
                f"{file}: {name!r} of its graph {has}, but its record says {_shown(shape)}; export the model again"
            )


def _shown(shape: Shape) -> str:
    return f"[{', '.join('any' if side is None else str(side) for side in shape)}]"


Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def run_export(
    run: Run,
    export: ExportRecord,
    pixels: Float[Tensor, "batch 3 height width"],
    padding_mask: Bool[Tensor, "batch height width"] | None,
) -> Outputs:
    """Run an exported graph, with padding up to the sizes that it has fixed.

    run: computes logits and boxes from pixels and mask, on the CPU. Raises ``CheckpointError`` when it fails.
    """
    with _told():
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


@contextmanager
def _told() -> Generator[None]:
    """Turn errors of runtimes, which have many kinds without a common base, into ``CheckpointError``."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"the exported graph can't be computed ({reason}); export the model again") from error
