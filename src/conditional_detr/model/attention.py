"""Multi-head attention, feed-forward network and MLP."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from conditional_detr.model.dropout import Dropout


class Projected(NamedTuple):
    """Projected queries, keys and values, split into heads: the inputs of ``attend``."""

    query: Float[Tensor, "batch heads queries depth"]
    key: Float[Tensor, "batch heads keys depth"]
    value: Float[Tensor, "batch heads keys value_depth"]


def split_heads(x: Float[Tensor, "batch tokens channels"], heads: int) -> Float[Tensor, "batch heads tokens depth"]:
    """Split the channels into heads; head ``i`` gets the ``i``-th contiguous part."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    query: Float[Tensor, "batch heads queries depth"],
    key: Float[Tensor, "batch heads keys depth"],
    value: Float[Tensor, "batch heads keys value_depth"],
    padding_mask: Bool[Tensor, "batch keys"] | None = None,
    dropout: Dropout | None = None,
) -> Float[Tensor, "batch queries channels"]:
    """Compute scaled dot-product attention (scale ``depth ** -0.5``) and merge the heads.

    padding_mask: True for padded keys; every image must have at least one key that is not padded.
    """
    allowed = None if padding_mask is None else ~padding_mask[:, None, None, :]
    if dropout is not None and not dropout.active:
        dropout = None
    if query.device.type != "cpu":
        probability = 0.0 if dropout is None else dropout.probability
        out = functional.scaled_dot_product_attention(query, key, value, allowed, probability)
    elif dropout is not None:
        weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        if allowed is not None:
            weights.masked_fill_(~allowed, -math.inf)
        weights = weights.softmax(-1)  # frees the logits, which are as large
        out = dropout.product(weights, value)
    else:
        # On a CPU, torch avoids storing the matrix of weights only if values are as deep as keys.
        depth = value.shape[-1]
        value = functional.pad(value, (0, key.shape[-1] - depth))
        out = functional.scaled_dot_product_attention(query, key, value, allowed)[..., :depth]
    return out.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Self-attention of DETR: the position is added to queries and keys, not to values."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.in_proj = nn.Linear(channels, 3 * channels)  # rows: query, key, value
        self.out_proj = nn.Linear(channels, channels)

    def project(
        self, x: Float[Tensor, "batch tokens channels"], position: Float[Tensor, "#batch tokens channels"]
    ) -> Projected:
        split = 2 * x.shape[-1]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        query, key = functional.linear(x + position, weight[:split], bias[:split]).chunk(2, dim=-1)
        value = functional.linear(x, weight[split:], bias[split:])
        return Projected(*(split_heads(each, self.heads) for each in (query, key, value)))

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        position: Float[Tensor, "#batch tokens channels"],
        padding_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens channels"]:
        return self.out_proj(attend(*self.project(x, position), padding_mask, self.dropout))


class FeedForward(nn.Module):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        return self.linear2(self.dropout.after_relu(self.linear1(x)))


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)
