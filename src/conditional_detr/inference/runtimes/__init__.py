"""Runtimes, which compute the network. A runtime is one module here."""

from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from conditional_detr.structures import Outputs

RuntimeName = Literal["auto", "torch", "onnxruntime", "openvino"]


@runtime_checkable
class Runtime(Protocol):
    """A network on one device. Several threads may call it at once."""

    name: str
    """name of the runtime and device, for users"""

    def __call__(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Outputs:
        """Return logits and boxes of the last decoder layer.

        pixels: RGB, ImageNet-normalized, on any device. padding_mask: True for padding; None for no padding.
        """
        ...

    def shared(self, streams: int) -> "Runtime | None":
        """Return the network for so many threads that call it at the same time, each with its part of the processor.

        None where calls at the same time are not faster, as on a GPU.
        """
        ...
