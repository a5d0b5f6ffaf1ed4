"""What the queries of a decoder layer look at, split as the paper's Figure 1 splits it.

The model is not touched: hooks on a copy of its modules, which shares its parameters, note what goes into the attention of
one layer, and the weights are computed from that afterwards, for the chosen queries only. So other threads may predict
meanwhile.
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

from conditional_detr.boxes import centre_to_corners
from conditional_detr.data.images import ImageLike, open_image
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
    """Attention weights of chosen queries in one image, per head; over all cells, or all queries, they sum to 1.

    combined: what the layer uses. spatial, content: what it would be if only that part of the product of query and key
    counted. Conditional DETR: spatial query with position keys, content query with content keys (in the first layer, these
    contain the learned positions, as published). DETR: the whole query with the position keys, or with the content keys.
    The logits of both parts add up to those of ``combined``. Cells that are masked as padding have weight 0.
    """

    combined: Float[Tensor, "chosen heads rows columns"]
    spatial: Float[Tensor, "chosen heads rows columns"]
    content: Float[Tensor, "chosen heads rows columns"]
    between_queries: Float[Tensor, "chosen heads queries"]

    def cropped(self, rows: int, columns: int) -> "AttentionMaps":
        """On the CPU, the upper left of the cells only."""
        combined, spatial, content = (
            part[..., :rows, :columns].float().cpu() for part in (self.combined, self.spatial, self.content)
        )
        return AttentionMaps(combined, spatial, content, self.between_queries.float().cpu())


class LayerRecord:
    """What went into the attention of one decoder layer in the last forward pass; see ``recorded``."""

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
        """What the decoder looked at."""
        return self.inputs[self.cross_attention][-1]

    def projected(self) -> Projected:
        """Queries, keys and values of the cross-attention, as the layer computes them."""
        return self.cross_attention.project(*self.inputs[self.cross_attention])

    def logits(
        self, queries: Int64[Tensor, " chosen"]
    ) -> tuple[Float[Tensor, "batch heads chosen cells"], Float[Tensor, "batch heads chosen cells"]]:
        """The spatial and the content part of the scaled products of queries and keys; they add up to the whole."""
        query, key, _ = self.projected()
        query = query[:, :, queries] * query.shape[-1] ** -0.5
        if isinstance(self.cross_attention, ConditionalCrossAttention):
            (content_query, spatial_query), (content_key, position_key) = query.chunk(2, -1), key.chunk(2, -1)
            return spatial_query @ position_key.transpose(-1, -2), content_query @ content_key.transpose(-1, -2)
        weight = self.cross_attention.in_proj.weight.chunk(3)[1]
        position_key = split_heads(functional.linear(self.memory.position, weight), self.cross_attention.heads)
        return query @ position_key.transpose(-1, -2), query @ (key - position_key).transpose(-1, -2)

    def maps(self, image: int, queries: Int64[Tensor, " chosen"]) -> AttentionMaps:
        """Weights of the chosen queries in one image of the batch."""
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
    """Return a copy of the modules with the same parameters, and the record of what goes into its decoder layer ``layer`` (from 0).

    The inputs are kept, not the weights: for R50 at 800 x 1333, 300 queries and 1050 cells of 256 numbers each, which
    exist anyway, so that recording takes no memory of its own.
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
    """Queries of one image, most confident first, and what they look at in decoder layer ``layer`` (from 1).

    detections: the best class of each query, with its final box. queries: their numbers, from 0. maps: cropped to the
    cells of the image, of which it covers ``rows`` and ``columns``, not whole numbers where it was padded. query_boxes: the final boxes of all queries, x0, y0, x1, y1 in pixels of the image. reference_points: of all
    queries, (x, y) in its pixels; None for plain DETR, which has none.
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
    """What the queries of the ``top`` most confident detections look at, or those given by number.

    layer: of the decoder, from 1; the last when not given. Raises ``ImageError`` for an image that can't be used, and
    ``SettingsError`` for a layer or query that the model does not have.
    """
    settings = detector.record.architecture
    layer = settings.decoder_layers if layer is None else layer
    if not 1 <= layer <= settings.decoder_layers:
        raise SettingsError(f"layer {layer} does not exist: the decoder has layers 1 to {settings.decoder_layers}")
    for query in queries or ():
        if not 0 <= query < settings.queries:
            raise SettingsError(f"query {query} does not exist: the model has queries 0 to {settings.queries - 1}")
    if top < 1:
        raise SettingsError(f"top is {top}; ask for at least one detection")
    opened = open_image(image)
    pipeline = detector.pipeline
    batch = pipeline.batch([pipeline.prepare(opened)]).to(detector.device)
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
    boxes = (centre_to_corners(outputs.boxes[0].float()) * frame.repeat(2)).cpu()
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
