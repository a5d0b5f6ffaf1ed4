"""The same network with less work, for inference alone."""

import copy
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from conditional_detr.model import winograd
from conditional_detr.model.backbone import FrozenBatchNorm2d, ResNet, scale_and_shift
from conditional_detr.model.network import DETR
from conditional_detr.structures import Predictions

# What torch.compile turns convolutions on a CPU into; not a public name, so there is a way without it.
_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


class FusedConvolution(nn.Module):
    """A convolution with its batch norm folded in, which adds a shortcut and applies ReLU by itself.

    On a CPU the weights are the model's, scaled at every pass, which takes one percent of the time and spares a second
    backbone; on a GPU, where launching the product takes longer than the product, they are scaled once.
    """

    scale: Tensor
    bias: Tensor
    scaled: Tensor | None

    def __init__(self, convolution: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution = cast(nn.Conv2d, convolution)
        scale, shift = scale_and_shift(cast(FrozenBatchNorm2d, norm))
        self.register_buffer("scale", scale.detach()[:, None, None, None])
        self.register_buffer("bias", shift.detach())
        scaled = None
        if convolution.weight.device.type != "cpu":
            scaled = (convolution.weight.detach() * self.scale).contiguous(memory_format=torch.channels_last)
        self.register_buffer("scaled", scaled)
        self.padding = cast("tuple[int, int]", convolution.padding)
        self.stride, self.dilation = convolution.stride, convolution.dilation

    def forward(self, x: Tensor, shortcut: Tensor | None = None, relu: bool = True) -> Tensor:
        """``shortcut`` may be overwritten."""
        weight = self.convolution.weight * self.scale if self.scaled is None else self.scaled
        if winograd.pays(x, weight, self.stride, self.padding, self.dilation):
            x = winograd.convolution(x, weight) + self.bias[:, None, None]
        elif _FUSED and x.device.type == "cpu" and x.dtype == torch.float32:
            operator, rest = torch.ops.mkldnn, (weight, self.bias, self.padding, self.stride, self.dilation, 1)
            if shortcut is not None:
                return operator._convolution_pointwise_.binary(shortcut, x, *rest, "add", 1.0, "relu", [], "")
            return operator._convolution_pointwise(x, *rest, "relu" if relu else "none", [], "")
        else:
            x = functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)
        if shortcut is not None:
            x = x.add_(shortcut)
        return x.relu_() if relu else x


class FusedBlock(nn.Module):
    """A residual block of either kind."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        parts = dict(block.named_children())
        names = [name for name in ("1", "2", "3") if f"conv{name}" in parts]
        self.convolutions = nn.ModuleList(FusedConvolution(parts[f"conv{name}"], parts[f"bn{name}"]) for name in names)
        projection = cast(nn.Sequential, parts["downsample"])
        self.projection = FusedConvolution(*projection) if len(projection) else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.projection is None else self.projection(x, relu=False)
        for convolution in self.convolutions[:-1]:
            x = convolution(x)
        return self.convolutions[-1](x, shortcut)


class FusedResNet(nn.Module):
    """What a ``ResNet`` computes in evaluation."""

    def __init__(self, backbone: ResNet) -> None:
        super().__init__()
        self.stem = FusedConvolution(backbone.conv1, backbone.bn1)
        self.maxpool = backbone.maxpool
        stages = (cast(nn.Sequential, backbone.get_submodule(name)) for name in backbone.stage_names)
        self.blocks = nn.Sequential(*(FusedBlock(block) for stage in stages for block in stage))

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        return self.blocks(self.maxpool(self.stem(pixels.contiguous(memory_format=torch.channels_last))))


class FastDETR(nn.Module):
    """A ``DETR`` that only predicts: on a CPU equal within rounding, on a GPU in half precision.

    It shares the model's parameters, but is to be made again when they change. compiled: by ``torch.compile``, which
    takes up to a minute for the first image, the first ones of other sizes, and the first ones with padding and in a
    batch; after that all sizes are served.
    """

    def __init__(self, model: DETR, compiled: bool = False) -> None:
        super().__init__()
        device = model.class_head.weight.device
        self.softmax = model.softmax
        self.precision: torch.dtype | None = None
        if device.type == "cuda":
            self.precision = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        network = copy.copy(model).eval()
        backbone: nn.Module = FusedResNet(model.backbone)
        if compiled and device.type == "cpu":  # it is oneDNN's operators already, which can't be traced
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
