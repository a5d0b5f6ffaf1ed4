"""A faster equivalent of the network, for inference only."""

import copy
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from conditional_detr.model.network import DETR
from conditional_detr.structures import Predictions


class FastDETR(nn.Module):
    """A ``DETR`` for inference: equal within rounding on a CPU, in half precision on a GPU.

    It shares the model's parameters. Make a new one when they change. compiled: use ``torch.compile``, which takes up to a
    minute each for the first image, the first image of another size, the first padded image and the first batch; after that
    any size works without compiling again.
    """

    def __init__(self, model: DETR, compiled: bool = False) -> None:
        super().__init__()
        device = model.class_head.weight.device
        self.softmax, self.compiled = model.softmax, compiled
        self.precision: torch.dtype | None = None
        if device.type == "cuda":
            self.precision = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        network = copy.copy(model).eval()
        backbone: nn.Module = model.backbone.fused()
        if compiled and device.type == "cpu":  # it consists of oneDNN operators already, which can't be traced
            backbone = cast(Any, torch.compiler.disable)(backbone)
        network._modules = {**model._modules, "backbone": backbone}
        self.network = torch.compile(network) if compiled else network
        self.eval()

    @torch.inference_mode()
    def forward(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Predictions:
        with torch.autocast(pixels.device.type, self.precision, enabled=self.precision is not None):
            return self.network(pixels, padding_mask)
