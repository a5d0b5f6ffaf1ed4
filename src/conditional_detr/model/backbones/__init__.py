"""Backbones. A family is one module here and one entry in ``record.BACKBONES``."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, Protocol, cast, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from conditional_detr.record import BACKBONES, Architecture, BackboneShape

# Who names a backbone's parameters: torchvision (official codes, MMDetection), timm, or transformers' own classes.
Naming = Literal["torchvision", "timm", "transformers"]


class Backbone(nn.Module):
    """A convolutional network without its classifier; its output is the last stage's feature map.

    channels: of the output. norm_frozen: batch norm is constant. gradient_checkpointing: recompute activations in the
    backward pass.
    """

    channels: int
    norm_frozen: bool
    gradient_checkpointing: bool

    def freeze(self, stages: int) -> None:
        """Stop training the stem and the first ``stages`` stages; -1 freezes nothing, not even the stem."""
        raise NotImplementedError

    def fused(self) -> nn.Module:
        """Return a network for inference that computes the same with fewer operations and shares the parameters."""
        raise NotImplementedError

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        raise NotImplementedError


@runtime_checkable
class Family(Protocol):
    """What the module of a family offers."""

    CLASSIFIER: str
    """prefix of the parameters of ImageNet weights that a detector has no use for"""

    def build(self, architecture: Architecture, *, norm_frozen: bool) -> Backbone:
        """Make the network with random weights. norm_frozen: batch norm as constants (published) or trained."""
        ...

    def named(self, name: str, naming: Naming) -> str:
        """Return the name that others have for our parameter ``name``. Raises ``KeyError`` for one that is not ours."""
        ...

    def ours(self, name: str, naming: Naming) -> str | None:
        """Return our name for a parameter of others; None for one that is not part of the family."""
        ...

    def recognize(self, values: Mapping[str, Tensor]) -> str | dict[str, Any] | None:
        """Read name or shape from parameters under our names; None for another family. Raises ``KeyError`` naming what is missing."""
        ...

    def to_transformers(self, backbone: str | BackboneShape) -> dict[str, Any]:
        """Return the ``backbone_config`` of transformers' own class."""
        ...

    def from_transformers(self, config: Mapping[str, Any]) -> str | dict[str, Any] | None:
        """Read name or shape from a ``backbone_config``; None for another family. Raises ``ValueError`` for what it does not have."""
        ...


def family(name: str) -> Family:
    """Return the family that ``record.BACKBONES`` has under this key."""
    return cast(Family, import_module(f"{__name__}.{name}"))


def families() -> list[Family]:
    return [family(name) for name in BACKBONES]
