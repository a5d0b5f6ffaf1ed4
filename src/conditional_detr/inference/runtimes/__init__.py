"""Runtimes: what computes the network. A runtime is one module here."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from conditional_detr.structures import Outputs


@runtime_checkable
class Runtime(Protocol):
    """Computes a network on one device. Safe to call from several threads at once."""

    name: str
    """what runs where, in words"""

    def __call__(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Outputs:
        """Return the last layer's logits and boxes.

        pixels: RGB, ImageNet-normalized, on any device. padding_mask: True where padded; None when nothing is padded.
        """
        ...
