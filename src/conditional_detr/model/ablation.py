"""Ablations of the conditional decoder: parts are held fixed to measure what each contributes."""

from collections.abc import Collection

import torch
from torch import nn

from conditional_detr.config import Ablation
from conditional_detr.model.decoder import ConditionalCrossAttention, ConditionalDecoder


@torch.no_grad()
def ablate(decoder: ConditionalDecoder, parts: Collection[Ablation]) -> None:
    """Set parts of the decoder to neutral values and freeze them (ablations of the paper, section 4).

    query_scale: T = 1 for every query. reference_points: s = (0, 0) before the sigmoid for every query, which is the center
    of the image, as in DETR. spatial_projection: the identity instead of the linear layer between T p_s and the attention.
    The network keeps its shapes, so checkpoints open as usual and the cost stays the same.
    """
    if "query_scale" in parts:
        _hold_at(decoder.query_scale.layers[-1], 1.0)
        decoder.query_scale.requires_grad_(False)
    if "reference_points" in parts:
        _hold_at(decoder.reference_head.layers[-1], 0.0)
        decoder.reference_head.requires_grad_(False)
    if "spatial_projection" in parts:
        for module in decoder.modules():
            if isinstance(module, ConditionalCrossAttention):
                nn.init.eye_(module.query_spatial.weight)
                nn.init.zeros_(module.query_spatial.bias)
                module.query_spatial.requires_grad_(False)


def _hold_at(layer: nn.Module, value: float) -> None:
    assert isinstance(layer, nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, value)
