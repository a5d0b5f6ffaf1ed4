"""ResNet (He et al., CVPR 2016; stride in the 3x3 convolution), parameter names as in torchvision."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from conditional_detr.model import winograd

Norm = Callable[[int], nn.Module]


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine parameters: all four are buffers, nothing trains.

    It has no ``forward``: ``_normalised`` folds it into the convolution before it.
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
    """What constant batch norm multiplies a channel with, and adds to it."""
    statistics = cast(FrozenBatchNorm2d, norm)  # torch's module has the same, as optional ones
    scale = statistics.weight * (statistics.running_var + norm.eps).rsqrt()
    return scale, statistics.bias - statistics.running_mean * scale


def _normalised(x: Tensor, convolution: nn.Module, norm: nn.Module) -> Tensor:
    """Batch norm of a convolution. Constant statistics become part of the weights, so no pass over its output is needed."""
    if norm.training and not isinstance(norm, FrozenBatchNorm2d):
        return norm(convolution(x))
    norm = cast("FrozenBatchNorm2d | nn.BatchNorm2d", norm)
    convolution = cast(nn.Conv2d, convolution)
    scale, shift = scale_and_shift(norm)
    stride, padding, dilation = convolution.stride, cast("tuple[int, int]", convolution.padding), convolution.dilation
    if not torch.is_grad_enabled() or scale.requires_grad or torch.is_autocast_enabled(x.device.type):
        weight = convolution.weight * scale[:, None, None, None]
        return functional.conv2d(x, weight, shift, stride, padding, dilation)
    return _ScaledConvolution.apply(x, convolution.weight, scale, shift, stride, padding, dilation)


class _ScaledConvolution(torch.autograd.Function):
    """A convolution with scaled weights, which the backward pass computes again instead of keeping a second backbone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, *shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight, scale)
        ctx.shape = stride, padding, dilation = shape
        scaled = weight * scale[:, None, None, None]
        ctx.winograd = winograd.pays(x, scaled, *shape)
        if ctx.winograd:
            return winograd.convolution(x, scaled) + shift[:, None, None]
        return functional.conv2d(x, scaled, shift, stride, padding, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        scaled, (gradient,) = weight * scale[:, None, None, None], gradients
        wanted = ctx.needs_input_grad[:2]
        if ctx.winograd and not torch.is_grad_enabled():  # a second derivative is left to torch
            of_x = winograd.input_gradient(gradient, scaled) if wanted[0] else None
            of_weight = winograd.weight_gradient(x, gradient) if wanted[1] else None
        else:
            of_x, of_weight, _ = torch.ops.aten.convolution_backward(
                gradient, x, scaled, None, *ctx.shape, False, [0, 0], 1, [*wanted, False]
            )
        if of_weight is not None:
            of_weight = of_weight.mul_(scale[:, None, None, None])
        return of_x, of_weight, None, None, None, None, None


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


def _projection(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential:
    """What brings the input to the residual's shape: nothing where it has it."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), norm(outputs))


def _joined(residual: Tensor, x: Tensor, projection: nn.Sequential) -> Tensor:
    shortcut = _normalised(x, *projection) if len(projection) else x
    return residual.add_(shortcut).relu_()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.downsample = _projection(inputs, outputs, stride, norm)
        self.conv1 = _convolution(inputs, outputs, 3, stride, dilation)
        self.bn1 = norm(outputs)
        self.conv2 = _convolution(outputs, outputs, 3, dilation=dilation)
        self.bn2 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = _normalised(x, self.conv1, self.bn1).relu_()
        residual = _normalised(residual, self.conv2, self.bn2)
        return _joined(residual, x, self.downsample)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; the inner ones have a quarter of the outputs."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        inner = outputs // 4
        self.downsample = _projection(inputs, outputs, stride, norm)
        self.conv1 = _convolution(inputs, inner, 1)
        self.bn1 = norm(inner)
        self.conv2 = _convolution(inner, inner, 3, stride, dilation)
        self.bn2 = norm(inner)
        self.conv3 = _convolution(inner, outputs, 1)
        self.bn3 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = _normalised(x, self.conv1, self.bn1).relu_()
        residual = _normalised(residual, self.conv2, self.bn2).relu_()
        residual = _normalised(residual, self.conv3, self.bn3)
        return _joined(residual, x, self.downsample)


class ResNet(nn.Module):
    """ResNet without its classifier; the output is the last stage's feature map.

    block: kind of residual block. depths: blocks per stage. widths: output channels per stage. stem_width: channels of
    the 7x7 stem. dilation: the last stage keeps the resolution and its blocks after the first use dilation 2 (DC5).
    norm_frozen: batch norm as constants (published) or trained.
    """

    def __init__(
        self,
        block: Literal["basic", "bottleneck"],
        depths: Sequence[int],
        widths: Sequence[int],
        stem_width: int,
        dilation: bool,
        norm_frozen: bool,
    ) -> None:
        super().__init__()
        norm: Norm = FrozenBatchNorm2d if norm_frozen else nn.BatchNorm2d
        kind = BasicBlock if block == "basic" else Bottleneck
        self.gradient_checkpointing = False
        self.norm_frozen = norm_frozen
        self.channels = widths[-1]
        self.stage_names = [f"layer{i + 1}" for i in range(len(depths))]

        self.conv1 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(stem_width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = stem_width
        for stage, (name, depth, outputs) in enumerate(zip(self.stage_names, depths, widths, strict=True)):
            dilated = dilation and stage == len(depths) - 1
            stride = 1 if stage == 0 or dilated else 2
            # The first block of a dilated stage keeps dilation 1, as in torchvision and the published DC5 weights.
            blocks = [kind(inputs, outputs, stride, 1, norm)]
            blocks += [kind(outputs, outputs, 1, 2 if dilated else 1, norm) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            inputs = outputs

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def freeze(self, stages: int) -> None:
        """Stop training the stem and the first ``stages`` stages; -1 freezes nothing, not even the stem."""
        if stages < 0:
            return
        for name in ["conv1", "bn1", *self.stage_names[:stages]]:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        if pixels.device.type == "cpu":  # there convolutions run faster with channels last, whatever the weights
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        x = self.maxpool(_normalised(pixels, self.conv1, self.bn1).relu_())
        for name in self.stage_names:
            stage = self.get_submodule(name)
            # Recomputing trained batch norm would count its statistics twice.
            if self.gradient_checkpointing and self.training and self.norm_frozen:
                x = cast(Tensor, checkpoint(stage, x, use_reentrant=False))
            else:
                x = stage(x)
        return x
