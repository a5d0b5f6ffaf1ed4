"""The network as a graph with dynamic sizes, which every kind of export is made from."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.export import Dim

from conditional_detr.boxes import center_to_corners
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.exports import FOUND, MASK, PIXELS, RAW, ExportRecord
from conditional_detr.inference.postprocess import PUBLISHED_COUNT, best_classes, top_pairs

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.onnx import ONNXProgram

_SMALLEST, _LARGEST, _MOST = 64, 2**15, 2**12  # pixels of a side, images in a batch
_EXAMPLE = (2, 96, 128)  # images, height, width: any numbers that differ and are not 1


class Graph(nn.Module):
    """A network with the outputs of an exported graph.

    Outputs: logits ``[batch, queries, logits]`` and boxes ``[batch, queries, 4]`` of the last decoder layer, as in ``Outputs``.
    With ``end_to_end`` also scores ``[batch, top]`` in 0..1, best first, their category_ids (int64), and corners
    ``[batch, top, 4]``: x0, y0, x1, y1 in 0..1.
    """

    category_ids: Tensor

    def __init__(self, checkpoint: Checkpoint, end_to_end: bool) -> None:
        super().__init__()
        self.network = checkpoint.model.eval()
        self.end_to_end = end_to_end
        self.select = best_classes if checkpoint.architecture.softmax else top_pairs
        self.count = max(PUBLISHED_COUNT, checkpoint.architecture.queries)
        self.register_buffer("category_ids", torch.tensor(checkpoint.categories.ids))
        self.eval()

    def forward(
        self, pixels: Float[Tensor, "batch 3 height width"], padding_mask: Bool[Tensor, "batch height width"]
    ) -> tuple[Tensor, ...]:
        logits, boxes = self.network(pixels, padding_mask).last
        if not self.end_to_end:
            return logits, boxes
        scores, indices, centers = self.select(logits, boxes, self.count)
        return logits, boxes, scores, self.category_ids[indices], center_to_corners(centers)


def output_names(end_to_end: bool) -> list[str]:
    """Return the names of the outputs of a ``Graph``, in order."""
    return [*RAW, *(FOUND if end_to_end else ())]


def onnx_program(checkpoint: Checkpoint, export: ExportRecord, opset: int | None) -> "ONNXProgram":
    """Return the ONNX graph of a network. Products of constants are folded, so batch norm is in the convolutions.

    opset: version of ONNX's operators; by default the one that torch writes.
    """
    from onnxscript import optimizer

    graph, inputs, shapes = _traced(checkpoint, export)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            inputs,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=opset,
            verbose=False,
            input_names=[PIXELS, MASK],
            output_names=output_names(export.end_to_end),
        )
        assert program is not None
        optimizer.optimize(program.model, input_size_limit=2**31, output_size_limit=2**31)  # also large weights
    return program


def torch_program(checkpoint: Checkpoint, export: ExportRecord) -> "ExportedProgram":
    """Return the graph of a network as torch represents it."""
    graph, inputs, shapes = _traced(checkpoint, export)
    with _quiet(), torch.no_grad():
        return torch.export.export(graph, inputs, dynamic_shapes=shapes)


def _traced(checkpoint: Checkpoint, export: ExportRecord) -> tuple[Graph, tuple[Tensor, Tensor], dict[str, Any]]:
    """Return what torch traces: the graph, example inputs, and which of their sizes are dynamic."""
    count, height, width = _EXAMPLE
    height, width = export.size or (height, width)
    count = export.batch or count
    # The names relate the sizes of pixels and mask.
    batch = None if export.batch else Dim("batch", min=1, max=_MOST)
    rows = None if export.size else Dim("height", min=_SMALLEST, max=_LARGEST)
    columns = None if export.size else Dim("width", min=_SMALLEST, max=_LARGEST)
    device = checkpoint.model.class_head.weight.device
    inputs = (
        torch.zeros(count, 3, height, width, device=device),
        torch.zeros(count, height, width, dtype=torch.bool, device=device),
    )
    shapes = {PIXELS: {0: batch, 2: rows, 3: columns}, MASK: {0: batch, 1: rows, 2: columns}}
    return Graph(checkpoint, export.end_to_end), inputs, shapes


@contextmanager
def _quiet() -> Generator[None]:
    """Keep torch's remarks on its own exporter to itself."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
