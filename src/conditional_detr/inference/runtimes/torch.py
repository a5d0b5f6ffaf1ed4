"""Runtime of PyTorch, for the network itself or its fast path."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from conditional_detr.model.fast import FastDETR
from conditional_detr.model.network import DETR
from conditional_detr.structures import Outputs


class TorchRuntime:
    """A network in evaluation mode, or its fast path, on the device of its weights."""

    def __init__(self, network: DETR | FastDETR, name: str = "torch") -> None:
        self.network = network
        self.device = next(network.parameters()).device
        self.name = f"{name} on {self.device}"
        self._shared = self.device.type == "cpu" and not (isinstance(network, FastDETR) and network.compiled)

    def shared(self, streams: int) -> "TorchRuntime | None":
        """Return the same on a CPU, unless it is compiled, which one thread must do."""
        return self if self._shared else None

    @torch.inference_mode()
    def __call__(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Outputs:
        mask = None if padding_mask is None else padding_mask.to(self.device, non_blocking=True)
        return self.network(pixels.to(self.device, non_blocking=True), mask).last
