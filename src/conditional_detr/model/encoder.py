"""Transformer encoder: self-attention over the cells of the feature map. Post-norm, as in DETR."""

from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from conditional_detr.model.attention import FeedForward, attend, split_heads


class SelfAttention(nn.Module):
    """Self-attention whose queries and keys carry the position, and whose values do not."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj = nn.Linear(channels, 3 * channels)  # rows: query, key, value
        self.out_proj = nn.Linear(channels, channels)

    def forward(
        self,
        x: Float[Tensor, "batch cells channels"],
        position: Float[Tensor, "#batch cells channels"],
        padding_mask: Bool[Tensor, "batch cells"] | None,
    ) -> Float[Tensor, "batch cells channels"]:
        split = 2 * x.shape[-1]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        query, key = functional.linear(x + position, weight[:split], bias[:split]).chunk(2, dim=-1)
        value = functional.linear(x, weight[split:], bias[split:])
        query, key, value = (split_heads(each, self.heads) for each in (query, key, value))
        return self.out_proj(attend(query, key, value, padding_mask, self.dropout if self.training else 0.0))


class EncoderLayer(nn.Module):
    def __init__(self, channels: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout)
        self.feed_forward = FeedForward(channels, feed_forward, dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch cells channels"],
        position: Float[Tensor, "#batch cells channels"],
        padding_mask: Bool[Tensor, "batch cells"] | None,
    ) -> Float[Tensor, "batch cells channels"]:
        x = self.norm1(x + self.dropout(self.self_attention(x, position, padding_mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class Encoder(nn.Module):
    """``layers`` may be 0: the decoder then sees the projected backbone features."""

    def __init__(self, layers: int, channels: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, feed_forward, dropout) for _ in range(layers))
        self.gradient_checkpointing = False

    def forward(
        self,
        x: Float[Tensor, "batch cells channels"],
        position: Float[Tensor, "#batch cells channels"],
        padding_mask: Bool[Tensor, "batch cells"] | None,
    ) -> Float[Tensor, "batch cells channels"]:
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = cast(Tensor, checkpoint(layer, x, position, padding_mask, use_reentrant=False))
            else:
                x = layer(x, position, padding_mask)
        return x
