"""Dropout (Srivastava et al., JMLR 2014): faster and smaller than torch's on a CPU, torch's on other devices."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.amp.autocast_mode import custom_bwd, custom_fwd
from torch.nn import functional


class Dropout(nn.Module):
    """In training, set elements to zero with ``probability`` and scale the others to keep the mean.

    On a CPU the probability is rounded to a multiple of 2 ** -16. ``after_relu`` and ``product`` fuse dropout with the
    operation before or after it.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def extra_repr(self) -> str:
        return f"{self.probability}"

    @property
    def active(self) -> bool:
        return self.training and self.probability > 0

    def forward(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        if not self.active or not _faster_here(x):
            return functional.dropout(x, self.probability, self.active)
        return x * _kept(x, self.probability) * (1 / (1 - self.probability))

    def after_relu(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Apply ReLU, then dropout."""
        if self.active and _faster_here(x):
            return _DroppedReLU.apply(x, self.probability)
        return self(torch.relu(x))

    def product(
        self, weights: Float[Tensor, "*batch rows inner"], x: Float[Tensor, "*batch inner columns"]
    ) -> Float[Tensor, "*batch rows columns"]:
        """Apply dropout to ``weights`` and return their matrix product with ``x``."""
        if self.active and _faster_here(weights):
            return _DroppedProduct.apply(weights, x, self.probability)
        return self(weights) @ x


def _faster_here(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _kept(x: Tensor, probability: float) -> UInt8[Tensor, "*batch"]:
    """Draw a mask: 1 for kept elements, 0 for dropped ones. torch computes bytes several times faster than booleans."""
    # One draw of 64 bits serves four elements; torch would draw once per element.
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    numbers = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.empty_like(numbers, dtype=torch.uint8)
    return torch.ge(numbers, round(probability * 2**16) - 2**15, out=kept)


class _DroppedReLU(torch.autograd.Function):
    """ReLU and dropout. Saves only the output for the backward pass; it is zero where an element was dropped or negative."""

    @staticmethod
    @custom_fwd(device_type="cpu")  # pyright: ignore[reportUntypedFunctionDecorator]
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        ctx.scale = 1 / (1 - probability)
        out = torch.relu(x).mul_(_kept(x, probability)).mul_(ctx.scale)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @custom_bwd(device_type="cpu")  # pyright: ignore[reportUntypedFunctionDecorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], out, 0).mul_(ctx.scale), None


class _DroppedProduct(torch.autograd.Function):
    """Product of dropped-out weights and ``x``.

    Saves the weights, which softmax saves anyway, and the mask for the backward pass, but not their product.
    """

    @staticmethod
    @custom_fwd(device_type="cpu")  # pyright: ignore[reportUntypedFunctionDecorator]
    def forward(ctx: Any, weights: Tensor, x: Tensor, probability: float) -> Tensor:
        ctx.scale = 1 / (1 - probability)
        kept = _kept(weights, probability)
        ctx.save_for_backward(weights, kept, x)
        return (weights * kept) @ (x * ctx.scale)

    @staticmethod
    @custom_bwd(device_type="cpu")  # pyright: ignore[reportUntypedFunctionDecorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, kept, x = ctx.saved_tensors
        gradient = gradients[0] * ctx.scale
        of_x = (weights * kept).transpose(-2, -1) @ gradient  # first, so that its temporary is freed before the next
        of_weights = (gradient @ x.transpose(-2, -1)).mul_(kept)
        return of_weights, of_x, None
