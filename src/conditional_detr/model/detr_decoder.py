"""The decoder of plain DETR (Carion et al., ECCV 2020, arXiv 2005.12872), the baseline of the paper.

A query is the sum of content and learned position; a key is the sum of content and position encoding. An attention logit is
one inner product of these sums and does not separate content from position.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from conditional_detr.model.attention import FeedForward, Projected, SelfAttention, attend, split_heads
from conditional_detr.model.decoder import Memory
from conditional_detr.model.dropout import Dropout


class CrossAttention(nn.Module):
    """Cross-attention of DETR: positions are added to queries and keys, not to values."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.in_proj = nn.Linear(channels, 3 * channels)  # rows: query, key, value
        self.out_proj = nn.Linear(channels, channels)

    def project(
        self,
        content: Float[Tensor, "batch queries channels"],
        query_position: Float[Tensor, "#batch queries channels"],
        memory: Memory,
    ) -> Projected:
        inputs = (content + query_position, memory.content + memory.position, memory.content)
        parts = zip(inputs, self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3), strict=True)
        return Projected(*(split_heads(functional.linear(*each), self.heads) for each in parts))

    def forward(
        self,
        content: Float[Tensor, "batch queries channels"],
        query_position: Float[Tensor, "#batch queries channels"],
        memory: Memory,
    ) -> Float[Tensor, "batch queries channels"]:
        projected = self.project(content, query_position, memory)
        return self.out_proj(attend(*projected, memory.padding_mask, self.dropout))


class DETRDecoderLayer(nn.Module):
    def __init__(self, channels: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout)
        self.cross_attention = CrossAttention(channels, heads, dropout)
        self.feed_forward = FeedForward(channels, feed_forward, dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        content: Float[Tensor, "batch queries channels"],
        query_position: Float[Tensor, "#batch queries channels"],
        memory: Memory,
    ) -> Float[Tensor, "batch queries channels"]:
        content = self.norm1(content + self.dropout(self.self_attention(content, query_position)))
        content = self.norm2(content + self.dropout(self.cross_attention(content, query_position, memory)))
        return self.norm3(content + self.dropout(self.feed_forward(content)))


class DETRDecoder(nn.Module):
    """Decoder of DETR. The outputs of all layers share one layer norm; norm_between_layers as in ``ConditionalDecoder``."""

    def __init__(
        self,
        *,
        layers: int,
        channels: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        queries: int,
        norm_between_layers: bool,
    ) -> None:
        super().__init__()
        self.norm_between_layers = norm_between_layers
        self.query_position = nn.Embedding(queries, channels)
        self.layers = nn.ModuleList(DETRDecoderLayer(channels, heads, feed_forward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.gradient_checkpointing = False

    def forward(self, memory: Memory) -> Float[Tensor, "layers batch queries channels"]:
        query_position = self.query_position.weight[None]
        content = query_position.new_zeros(memory.content.shape[0], *query_position.shape[1:])
        outputs: list[Tensor] = []
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                content = cast(Tensor, checkpoint(layer, content, query_position, memory, use_reentrant=False))
            else:
                content = layer(content, query_position, memory)
            outputs.append(self.norm(content))
            if self.norm_between_layers:
                content = outputs[-1]
        if self.norm_between_layers:
            outputs[-1] = self.norm(content)
        return torch.stack(outputs)
