"""The decoder of Conditional DETR (Meng et al., ICCV 2021, arXiv 2108.06152, section 3).

A query has two parts: the *content query* c_q, computed from the decoder embedding, and the *spatial query* p_q = T p_s.
p_s = sinusoidal(sigmoid(s)) is the encoding of the query's reference point s, and the diagonal matrix T is predicted from
the decoder embedding. A key has a content part c_k, from the encoder, and a position part p_k. Both are concatenated per
head, so that an attention logit is the sum of a content and a spatial term: c_q . c_k + p_q . p_k.
"""

from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from conditional_detr.model.attention import MLP, FeedForward, Projected, attend, split_heads
from conditional_detr.model.dropout import Dropout
from conditional_detr.model.position import point_encoding
from conditional_detr.model.precision import full_precision


class Memory(NamedTuple):
    """Input of cross-attention: the encoder's output, the position encodings of its cells and the padding mask."""

    content: Float[Tensor, "batch cells channels"]
    position: Float[Tensor, "#batch cells channels"]
    padding_mask: Bool[Tensor, "batch cells"] | None


class QuerySelfAttention(nn.Module):
    """Self-attention between queries: content and position are projected separately and added."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.query_content = nn.Linear(channels, channels)
        self.query_position = nn.Linear(channels, channels)
        self.key_content = nn.Linear(channels, channels)
        self.key_position = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def project(
        self,
        content: Float[Tensor, "batch queries channels"],
        query_position: Float[Tensor, "#batch queries channels"],
        groups: int = 1,
    ) -> Projected:
        query = self.query_content(content) + self.query_position(query_position)
        key = self.key_content(content) + self.key_position(query_position)
        value = self.value(content)
        batch, _, channels = content.shape
        parts = (each.reshape(batch * groups, -1, channels) for each in (query, key, value))
        return Projected(*(split_heads(part, self.heads) for part in parts))

    def forward(
        self,
        content: Float[Tensor, "batch queries channels"],
        query_position: Float[Tensor, "#batch queries channels"],
        groups: int = 1,
    ) -> Float[Tensor, "batch queries channels"]:
        """Apply self-attention within each of ``groups`` consecutive groups of equal size."""
        attended = attend(*self.project(content, query_position, groups), dropout=self.dropout)
        return self.out_proj(attended.reshape(content.shape))


class ConditionalCrossAttention(nn.Module):
    """Conditional cross-attention (section 3): content and spatial part are concatenated per head.

    In the first layer the content query does not depend on the image yet. There the learned query position is added to the
    content query, and the position key to the content key.
    """

    def __init__(self, channels: int, heads: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.query_content = nn.Linear(channels, channels)
        self.query_position = nn.Linear(channels, channels) if first else None
        self.query_spatial = nn.Linear(channels, channels)
        self.key_content = nn.Linear(channels, channels)
        self.key_position = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def project(
        self,
        content: Float[Tensor, "batch queries channels"],
        query_position: Float[Tensor, "#batch queries channels"],
        spatial: Float[Tensor, "#batch queries channels"],
        memory: Memory,
    ) -> Projected:
        """Project queries, keys and values. Content is the first half of the depth of queries and keys, position the second."""
        query_content = self.query_content(content)
        query_spatial = self.query_spatial(spatial).expand_as(query_content)
        key_content = self.key_content(memory.content)
        key_position = self.key_position(memory.position).expand_as(key_content)
        if self.query_position is not None:
            query_content = query_content + self.query_position(query_position)
            key_content = key_content + key_position
        query = torch.cat([split_heads(query_content, self.heads), split_heads(query_spatial, self.heads)], dim=-1)
        key = torch.cat([split_heads(key_content, self.heads), split_heads(key_position, self.heads)], dim=-1)
        value = split_heads(self.value(memory.content), self.heads)
        return Projected(query, key, value)

    def forward(
        self,
        content: Float[Tensor, "batch queries channels"],
        query_position: Float[Tensor, "#batch queries channels"],
        spatial: Float[Tensor, "#batch queries channels"],
        memory: Memory,
    ) -> Float[Tensor, "batch queries channels"]:
        projected = self.project(content, query_position, spatial, memory)
        return self.out_proj(attend(*projected, memory.padding_mask, self.dropout))


class ConditionalDecoderLayer(nn.Module):
    def __init__(self, *, channels: int, heads: int, feed_forward: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.self_attention = QuerySelfAttention(channels, heads, dropout)
        self.cross_attention = ConditionalCrossAttention(channels, heads, dropout, first)
        self.feed_forward = FeedForward(channels, feed_forward, dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        content: Float[Tensor, "batch queries channels"],
        query_position: Float[Tensor, "#batch queries channels"],
        spatial: Float[Tensor, "#batch queries channels"],
        memory: Memory,
        groups: int = 1,
    ) -> Float[Tensor, "batch queries channels"]:
        content = self.norm1(content + self.dropout(self.self_attention(content, query_position, groups)))
        attended = self.cross_attention(content, query_position, spatial, memory)
        content = self.norm2(content + self.dropout(attended))
        return self.norm3(content + self.dropout(self.feed_forward(content)))


class ConditionalDecoder(nn.Module):
    """Decoder of Conditional DETR. The outputs of all layers share one layer norm.

    norm_between_layers: every layer gets the normalized output of the one before, and the last output is normalized twice.
    transformers computes this with ``auxiliary_loss=True``; it is not in the paper.
    """

    def __init__(
        self,
        *,
        layers: int,
        channels: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        queries: int,
        temperature: float,
        norm_between_layers: bool,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.norm_between_layers = norm_between_layers
        self.query_position = nn.Embedding(queries, channels)
        self.further_groups: nn.Embedding | None = None
        self.layers = nn.ModuleList(
            ConditionalDecoderLayer(
                channels=channels, heads=heads, feed_forward=feed_forward, dropout=dropout, first=i == 0
            )
            for i in range(layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.query_scale = MLP(channels, channels, channels, 2)  # predicts T from the decoder embedding
        self.reference_head = MLP(channels, channels, 2, 2)
        # The first layer uses T = 1, so with a single layer the query scale would get no gradient.
        self.query_scale.requires_grad_(layers > 1)
        self.gradient_checkpointing = False

    def train_groups(self, groups: int) -> None:
        """Train ``groups`` sets of queries at once (Group DETR, Chen et al., ICCV 2023).

        The sets share everything but their embeddings. Evaluation and checkpoints use the first group only.
        """
        queries, channels = self.query_position.weight.shape
        self.further_groups = nn.Embedding((groups - 1) * queries, channels) if groups > 1 else None

    def query_positions(self) -> Float[Tensor, "queries channels"]:
        """Return the learned query positions; in training those of all groups."""
        weight = self.query_position.weight
        if self.training and self.further_groups is not None:
            return torch.cat([weight, self.further_groups.weight])
        return weight

    def reference_points(self) -> Float[Tensor, "queries 2"]:
        """Compute sigmoid(s) for the reference point s of every query: (x, y) in 0..1 of the unpadded image."""
        weight = self.query_positions()
        with full_precision(weight):
            return self.reference_head(weight).sigmoid()

    def forward(self, memory: Memory) -> Float[Tensor, "layers batch queries channels"]:
        query_position = self.query_positions()[None]
        groups = query_position.shape[1] // self.query_position.num_embeddings
        encoding = point_encoding(self.reference_points(), query_position.shape[-1], self.temperature)[None]
        content = query_position.new_zeros(memory.content.shape[0], *query_position.shape[1:])
        outputs: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            spatial = encoding if i == 0 else self.query_scale(content) * encoding
            if self.gradient_checkpointing and self.training:
                content = cast(
                    Tensor, checkpoint(layer, content, query_position, spatial, memory, groups, use_reentrant=False)
                )
            else:
                content = layer(content, query_position, spatial, memory, groups)
            outputs.append(self.norm(content))
            if self.norm_between_layers:
                content = outputs[-1]
        if self.norm_between_layers:
            outputs[-1] = self.norm(content)
        return torch.stack(outputs)
