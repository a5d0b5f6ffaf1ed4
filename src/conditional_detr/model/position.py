"""Sine encodings of the cells of the feature map (keys) and of reference points (spatial queries)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EPSILON = 1e-6  # added to the number of valid rows and columns, as DETR does


def _interleaved_sine(angle: Float[Tensor, "*batch"], channels: int, temperature: float) -> Tensor:
    """Return sine and cosine of ``angle`` at ``channels / 2`` wavelengths, interleaved: ``[*batch, channels]``."""
    # The wavelengths are float32 in any precision, because published weights were trained with them.
    channel = torch.arange(channels, dtype=torch.float32, device=angle.device)
    wavelength = temperature ** (2 * torch.div(channel, 2, rounding_mode="floor") / channels)
    phase = angle[..., None] / wavelength
    return torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], dim=-1).flatten(-2)


def point_encoding(
    points: Float[Tensor, "*batch 2"], channels: int, temperature: float
) -> Float[Tensor, "*batch {channels}"]:
    """Compute the sine encoding of points (x, y) in 0..1: p_s = sinusoidal(sigmoid(s)) of the paper (section 3).

    y is in the first half of the channels. Computed in at least float32.
    """
    angle = points * (2 * math.pi)
    y = _interleaved_sine(angle[..., 1], channels // 2, temperature)
    x = _interleaved_sine(angle[..., 0], channels // 2, temperature)
    return torch.cat([y, x], dim=-1)


def grid_encoding(
    valid: Bool[Tensor, "batch height width"], channels: int, temperature: float
) -> Float[Tensor, "batch {channels} height width"]:
    """Compute the sine encoding of every cell of a feature map (float32).

    Positions are normalized by the number of valid rows and columns.
    """
    y = valid.cumsum(1, dtype=torch.float32)
    x = valid.cumsum(2, dtype=torch.float32)
    y = y / (y[:, -1:, :] + EPSILON) * (2 * math.pi)
    x = x / (x[:, :, -1:] + EPSILON) * (2 * math.pi)
    encoding = torch.cat(
        [_interleaved_sine(y, channels // 2, temperature), _interleaved_sine(x, channels // 2, temperature)], dim=-1
    )
    return encoding.permute(0, 3, 1, 2)


def inverse_sigmoid(x: Float[Tensor, "*batch"], epsilon: float = 1e-5) -> Float[Tensor, "*batch"]:
    """Return the logit of ``x`` in 0..1. It is finite at both ends: ``x`` and ``1 - x`` are clamped to ``epsilon`` or more."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=epsilon) / (1 - x).clamp(min=epsilon))
