"""Attention maps of the queries of a decoder layer, split into parts as in Figure 1 of the paper (arXiv 2108.06152).

Hooks on a copy of the modules, which shares the parameters of the model, record the inputs of the attention of one layer. The
weights are computed from them afterwards, for the chosen queries only. The model itself is not changed, so other threads may
predict at the same time.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from conditional_detr.boxes import center_to_corners
from conditional_detr.data.images import ImageLike, name_of, open_image
from conditional_detr.errors import SettingsError
from conditional_detr.inference.detector import Detector
from conditional_detr.inference.postprocess import class_scores
from conditional_detr.model.attention import Projected, split_heads
from conditional_detr.model.decoder import (
    ConditionalCrossAttention,
    ConditionalDecoder,
    ConditionalDecoderLayer,
    Memory,
)
from conditional_detr.model.detr_decoder import DETRDecoderLayer
from conditional_detr.model.network import DETR
from conditional_detr.structures import Detections


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights of chosen queries in one image, per head. Weights over all cells, or all queries, sum to 1.

    combined: cross-attention weights of the layer. spatial, content: softmax of only that part of the logits; both parts add
    up to the logits of ``combined``. between_queries: self-attention weights. Padding has weight 0.

    Conditional DETR (section 3.2): the spatial part is the product of spatial query and position key, the content part that
    of content query and content key. In the first layer, content queries and keys contain positions too, as published. DETR:
    the parts are the products of the whole query with the position key and with the content key.
    """

    combined: Float[Tensor, "chosen heads rows columns"]
    spatial: Float[Tensor, "chosen heads rows columns"]
    content: Float[Tensor, "chosen heads rows columns"]
    between_queries: Float[Tensor, "chosen heads queries"]

    def cropped(self, rows: int, columns: int) -> "AttentionMaps":
        """Return the maps of the first rows and columns of cells, on the CPU in float32."""
        combined, spatial, content = (
            part[..., :rows, :columns].float().cpu() for part in (self.combined, self.spatial, self.content)
        )
        return AttentionMaps(combined, spatial, content, self.between_queries.float().cpu())


class LayerRecord:
    """Inputs of the attention of one decoder layer in the last forward pass. Created by ``recorded``."""

    def __init__(self, layer: ConditionalDecoderLayer | DETRDecoderLayer) -> None:
        self.cross_attention, self.self_attention = layer.cross_attention, layer.self_attention
        self.inputs: dict[nn.Module, tuple[Any, ...]] = {}
        self.grid = (0, 0)

    def note_inputs(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.inputs[module] = inputs

    def note_grid(self, module: nn.Module, inputs: tuple[Any, ...], features: Tensor) -> None:
        self.grid = (features.shape[-2], features.shape[-1])

    @property
    def memory(self) -> Memory:
        """Encoder output that the decoder attends to."""
        return self.inputs[self.cross_attention][-1]

    def projected(self) -> Projected:
        """Return queries, keys and values of the cross-attention, as the layer computes them."""
        return self.cross_attention.project(*self.inputs[self.cross_attention])

    def logits(
        self, queries: Int64[Tensor, " chosen"]
    ) -> tuple[Float[Tensor, "batch heads chosen cells"], Float[Tensor, "batch heads chosen cells"]]:
        """Return the spatial and the content part of the cross-attention logits. Their sum is the logits of the layer."""
        query, key, _ = self.projected()
        query = query[:, :, queries] * query.shape[-1] ** -0.5
        if isinstance(self.cross_attention, ConditionalCrossAttention):
            (content_query, spatial_query), (content_key, position_key) = query.chunk(2, -1), key.chunk(2, -1)
            return spatial_query @ position_key.transpose(-1, -2), content_query @ content_key.transpose(-1, -2)
        weight = self.cross_attention.in_proj.weight.chunk(3)[1]
        position_key = split_heads(functional.linear(self.memory.position, weight), self.cross_attention.heads)
        return query @ position_key.transpose(-1, -2), query @ (key - position_key).transpose(-1, -2)

    def maps(self, image: int, queries: Int64[Tensor, " chosen"]) -> AttentionMaps:
        """Return the attention weights of the chosen queries in one image of the batch."""
        spatial, content = self.logits(queries)
        mask = self.memory.padding_mask

        def over_cells(logits: Tensor) -> Tensor:
            if mask is not None:
                logits = logits.masked_fill(mask[:, None, None, :], -torch.inf)
            return logits.softmax(-1)[image].transpose(0, 1).unflatten(-1, self.grid)

        query, key, _ = self.self_attention.project(*self.inputs[self.self_attention])
        between = (query[image][:, queries] * query.shape[-1] ** -0.5 @ key[image].transpose(-1, -2)).softmax(-1)
        between = between.transpose(0, 1)
        return AttentionMaps(over_cells(spatial + content), over_cells(spatial), over_cells(content), between)


def recorded(model: DETR, layer: int) -> tuple[DETR, LayerRecord]:
    """Return a copy of the model that shares its parameters, and the record of the inputs of its decoder layer ``layer``.

    layer: counted from 0. The record keeps references to the inputs, not the attention weights, so it takes no extra memory.
    For R50 at 800 x 1333, the inputs are 300 queries and 1050 cells with 256 numbers each.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    record = LayerRecord(cast("ConditionalDecoderLayer | DETRDecoderLayer", copied.decoder.layers[layer]))
    record.cross_attention.register_forward_pre_hook(record.note_inputs)
    record.self_attention.register_forward_pre_hook(record.note_inputs)
    copied.input_proj.register_forward_hook(record.note_grid)
    return copied, record


@dataclass(frozen=True)
class Explanation:
    """Chosen queries of one image, most confident first, with their attention maps in one decoder layer.

    layer: decoder layer, from 1. detections: best class and final box of each chosen query. queries: indices of the queries,
    from 0. maps: attention maps, cropped to the cells of the image. rows, columns: number of cells that the image covers;
    fractional where the image was padded. query_boxes: final boxes of all queries, x0, y0, x1, y1 in image pixels.
    reference_points: (x, y) of all queries in image pixels; None for plain DETR, which has no reference points.
    """

    image: Image.Image
    layer: int
    detections: Detections
    queries: Int64[Tensor, " chosen"]
    maps: AttentionMaps
    rows: float
    columns: float
    query_boxes: Float[Tensor, "queries 4"]
    reference_points: Float[Tensor, "queries 2"] | None


@torch.no_grad()
def explain(
    detector: Detector, image: ImageLike, layer: int | None = None, queries: Sequence[int] | None = None, top: int = 3
) -> Explanation:
    """Return the attention maps of given queries, or of the queries of the ``top`` most confident detections.

    layer: decoder layer, from 1; by default the last. queries: indices of queries, from 0. Raises ``ImageError`` for an image
    that can't be used, and ``SettingsError`` for an invalid ``top`` and for a layer or query that the model does not have.
    """
    settings = detector.record.architecture
    layer = settings.decoder_layers if layer is None else layer
    if not 1 <= layer <= settings.decoder_layers:
        raise SettingsError(f"layer {layer} does not exist; the decoder has layers 1 to {settings.decoder_layers}")
    for query in queries or ():
        if not 0 <= query < settings.queries:
            raise SettingsError(f"query {query} does not exist; the model has queries 0 to {settings.queries - 1}")
    if top < 1:
        raise SettingsError(f"top is {top}; ask for at least one detection")
    opened = open_image(image)
    pipeline = detector.pipeline
    batch = pipeline.batch([pipeline.prepare(opened, name_of(image, "image"))]).to(detector.device)
    model, record = recorded(detector.model, layer - 1)
    outputs = model(batch.pixels, batch.padding_mask).last

    scores, indices = class_scores(outputs.logits[0], settings.softmax).max(-1)
    if not queries:
        chosen = scores.topk(min(top, len(scores))).indices
    else:
        chosen = torch.tensor(list(dict.fromkeys(queries)), device=scores.device)
        chosen = chosen[scores[chosen].argsort(descending=True, stable=True)]
    height, width = pipeline.frames([(opened.height, opened.width)], batch)[0]
    frame = torch.tensor([width, height], device=scores.device)
    boxes = (center_to_corners(outputs.boxes[0].float()) * frame.repeat(2)).cpu()
    points = None
    if isinstance(detector.model.decoder, ConditionalDecoder):
        points = (detector.model.decoder.reference_points().float() * frame).cpu()
    categories = detector.categories
    labels = indices[chosen].tolist()
    resized = detector.record.input_size.resized(opened.height, opened.width)
    rows, columns = (cells * part / of for cells, part, of in zip(record.grid, resized, batch.size, strict=True))
    maps = record.maps(0, chosen).cropped(math.ceil(rows), math.ceil(columns))
    return Explanation(
        opened,
        layer,
        Detections(
            boxes[chosen.cpu()],
            scores[chosen].float().cpu(),
            torch.tensor([categories.ids[label] for label in labels]),
            [categories.names[label] for label in labels],
        ),
        chosen.cpu(),
        maps,
        rows,
        columns,
        boxes,
        points,
    )
