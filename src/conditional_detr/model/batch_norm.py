"""Convolutions with folded batch norm, from which every backbone is built."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from conditional_detr.model import winograd

# The operator that torch.compile uses for convolutions on a CPU. It is not public, so there is a fallback.
_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")

Activation = Literal["relu", "relu6", "none"]
# Activation -> the operator's name for it, and its limits.
_ACTIVATIONS: dict[Activation, tuple[str, list[float]]] = {
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
    "none": ("none", []),
}


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine parameters. All four are buffers and are not trained.

    It has no ``forward``: ``normalized_convolution`` folds it into the preceding convolution.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


def scale_and_shift(norm: FrozenBatchNorm2d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift per channel of batch norm with constant statistics."""
    statistics = cast(FrozenBatchNorm2d, norm)  # torch's module has the same tensors, typed as optional
    scale = statistics.weight * (statistics.running_var + norm.eps).rsqrt()
    return scale, statistics.bias - statistics.running_mean * scale


def normalized_convolution(x: Tensor, convolution: nn.Module, norm: nn.Module) -> Tensor:
    """Apply a convolution and its batch norm.

    Constant statistics are folded into the weights, which saves a pass over the output.
    """
    if norm.training and not isinstance(norm, FrozenBatchNorm2d):
        return norm(convolution(x))
    norm = cast("FrozenBatchNorm2d | nn.BatchNorm2d", norm)
    convolution = cast(nn.Conv2d, convolution)
    scale, shift = scale_and_shift(norm)
    stride, padding, dilation = convolution.stride, cast("tuple[int, int]", convolution.padding), convolution.dilation
    if not torch.is_grad_enabled() or scale.requires_grad or torch.is_autocast_enabled(x.device.type):
        weight = convolution.weight * scale[:, None, None, None]
        return functional.conv2d(x, weight, shift, stride, padding, dilation, convolution.groups)
    return _ScaledConvolution.apply(x, convolution.weight, scale, shift, convolution.groups, stride, padding, dilation)


class _ScaledConvolution(torch.autograd.Function):
    """A convolution with scaled weights. The backward pass recomputes them, which saves a second copy of the backbone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, groups: int, *shape: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight, scale)
        ctx.shape, ctx.groups = shape, groups
        stride, padding, dilation = shape
        scaled = weight * scale[:, None, None, None]
        ctx.winograd = groups == 1 and winograd.pays(x, scaled, *shape)
        if ctx.winograd:
            return winograd.convolution(x, scaled) + shift[:, None, None]
        return functional.conv2d(x, scaled, shift, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        scaled, (gradient,) = weight * scale[:, None, None, None], gradients
        wanted = ctx.needs_input_grad[:2]
        if ctx.winograd and not torch.is_grad_enabled():  # torch computes second derivatives
            of_x = winograd.input_gradient(gradient, scaled) if wanted[0] else None
            of_weight = winograd.weight_gradient(x, gradient) if wanted[1] else None
        else:
            of_x, of_weight, _ = torch.ops.aten.convolution_backward(
                gradient, x, scaled, None, *ctx.shape, False, [0, 0], ctx.groups, [*wanted, False]
            )
        if of_weight is not None:
            of_weight = of_weight.mul_(scale[:, None, None, None])
        return of_x, of_weight, *[None] * 6


class FusedConvolution(nn.Module):
    """A convolution for inference with folded batch norm, optional shortcut and activation.

    On a CPU the weights are the model's, scaled in every forward pass. That takes one percent of the time and saves a second
    copy of the backbone. On a GPU they are scaled once, because launching the product takes longer than computing it.
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
        self.stride, self.dilation, self.groups = convolution.stride, convolution.dilation, convolution.groups

    def forward(self, x: Tensor, shortcut: Tensor | None = None, activation: Activation = "relu") -> Tensor:
        """Convolve ``x``, add ``shortcut`` and apply the activation; ``shortcut`` may be overwritten."""
        weight = self.convolution.weight * self.scale if self.scaled is None else self.scaled
        shape = self.stride, self.padding, self.dilation
        if self.groups == 1 and winograd.pays(x, weight, *shape):
            x = winograd.convolution(x, weight) + self.bias[:, None, None]
        elif _FUSED and x.device.type == "cpu" and x.dtype == torch.float32:
            operator = torch.ops.mkldnn
            rest = (weight, self.bias, self.padding, self.stride, self.dilation, self.groups)
            kind, limits = _ACTIVATIONS[activation]
            if shortcut is None:
                return operator._convolution_pointwise(x, *rest, kind, limits, "")
            unary = None if activation == "none" else kind
            return operator._convolution_pointwise_.binary(shortcut, x, *rest, "add", 1.0, unary, limits, "")
        else:
            x = functional.conv2d(x, weight, self.bias, *shape, self.groups)
        if shortcut is not None:
            x = x.add_(shortcut)
        if activation == "none":
            return x
        return x.relu_() if activation == "relu" else functional.relu6(x, inplace=True)
