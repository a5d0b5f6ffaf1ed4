"""Transformer encoder: self-attention over the cells of the feature map, post-norm as in DETR."""

from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from conditional_detr.model.attention import FeedForward, SelfAttention
from conditional_detr.model.dropout import Dropout


class EncoderLayer(nn.Module):
    def __init__(self, channels: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout)
        self.feed_forward = FeedForward(channels, feed_forward, dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch cells channels"],
        position: Float[Tensor, "#batch cells channels"],
        padding_mask: Bool[Tensor, "batch cells"] | None,
    ) -> Float[Tensor, "batch cells channels"]:
        x = self.norm1(x + self.dropout(self.self_attention(x, position, padding_mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class Encoder(nn.Module):
    """Transformer encoder of DETR; with 0 layers it returns the projected backbone features."""

    def __init__(self, *, layers: int, channels: int, heads: int, feed_forward: int, dropout: float) -> None:
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
