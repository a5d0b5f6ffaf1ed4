"""The conditional decoder (section 3 of the paper, "Conditional Cross-Attention").

Every query is a pair: the *content query* (the decoder embedding, image-dependent) and the *spatial query*
p_q = T * p_s, where p_s is the sine embedding of the query's reference point s and the diagonal T comes from the
decoder embedding. Keys are pairs likewise: content key (from the encoder) and position key. Concatenating each pair
per head makes an attention weight the sum of a content and a spatial term.
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
    """What the decoder looks at: the encoder's output, its cells' positions, and which cells are padding."""

    content: Float[Tensor, "batch cells channels"]
    position: Float[Tensor, "#batch cells channels"]
    padding_mask: Bool[Tensor, "batch cells"] | None


class QuerySelfAttention(nn.Module):
    """Self-attention between queries: content and position have projections of their own, and are added."""

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
        """Queries attend to those of their own group, of equal and consecutive ``groups``."""
        attended = attend(*self.project(content, query_position, groups), dropout=self.dropout)
        return self.out_proj(attended.reshape(content.shape))


class ConditionalCrossAttention(nn.Module):
    """Cross-attention with content and spatial part concatenated per head: the paper's conditional cross-attention.

    In the first layer the content query carries no image yet, so the learned query position is added to the content
    query, and the position key to the content key.
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
        """Content in the first half of every query's and key's depth, position in the second."""
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
    """Decoder of Conditional DETR. One norm is shared by the outputs of all layers.

    norm_between_layers: what transformers computes with ``auxiliary_loss=True``, which is not in the paper: every layer gets
    the normalised output of the one before, and the last output is normalised twice.
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
        self.query_scale = MLP(channels, channels, channels, 2)  # T, from the decoder embedding
        self.reference_head = MLP(channels, channels, 2, 2)
        # The first layer takes T = 1, so with a single layer nothing would train the query scale.
        self.query_scale.requires_grad_(layers > 1)
        self.gradient_checkpointing = False

    def train_groups(self, groups: int) -> None:
        """Train ``groups`` sets of queries at once (Group DETR, Chen et al., ICCV 2023).

        They share everything but their embeddings. Evaluation and checkpoints have the first group only.
        """
        queries, channels = self.query_position.weight.shape
        self.further_groups = nn.Embedding((groups - 1) * queries, channels) if groups > 1 else None

    def query_positions(self) -> Float[Tensor, "queries channels"]:
        """The learned queries, in training those of all groups."""
        weight = self.query_position.weight
        if self.training and self.further_groups is not None:
            return torch.cat([weight, self.further_groups.weight])
        return weight

    def reference_points(self) -> Float[Tensor, "queries 2"]:
        """The reference point s of every query, (x, y) in 0..1 of the unpadded image."""
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
