"""Backbone families. Each is one module here and one entry in ``architecture.BACKBONES``."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from conditional_detr.architecture import BACKBONES, Architecture, BackboneConfig, BackboneShape

# Naming scheme of a backbone's parameters: torchvision (official codes, MMDetection), timm, or transformers' own classes.
Naming = Literal["torchvision", "timm", "transformers"]


class Backbone(nn.Module, ABC):
    """A convolutional network without its classifier. The output is the feature map of the last stage.

    channels: number of output channels. norm_frozen: batch norm is constant. gradient_checkpointing: recompute activations
    in the backward pass.
    """

    channels: int
    norm_frozen: bool
    gradient_checkpointing: bool

    @abstractmethod
    def freeze(self, stages: int) -> None:
        """Stop training the stem and the first ``stages`` stages; -1 freezes nothing, not even the stem."""

    def compute_buffers(self) -> None:
        """Compute buffers that are not in checkpoints, in a network that was on the meta device until weights were loaded."""
        return

    @abstractmethod
    def fused(self) -> nn.Module:
        """Return an equivalent network for inference, with fewer operations and shared parameters."""

    @abstractmethod
    def forward(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]: ...


class ImageNetFile(NamedTuple):
    """A published file of ImageNet weights.

    name: file name. sha256: first digits of its checksum. url: where it is published. package: installed package that holds
    it instead, and extra of this project that installs that.
    """

    name: str
    sha256: str
    license: str
    url: str = ""
    package: str = ""
    extra: str = ""


@runtime_checkable
class Family(Protocol):
    """Interface of a family's module."""

    IMAGENET: Mapping[str, ImageNetFile]
    """name of a backbone -> published ImageNet weights"""
    TIMM: Mapping[str, tuple[str, int]]
    """name of a backbone -> timm's name, and the index of the output among timm's feature maps"""

    def build(self, architecture: Architecture, *, norm_frozen: bool) -> Backbone:
        """Build the network with random weights. norm_frozen: constant batch norm (published) instead of trained."""
        ...

    def named(self, name: str, naming: Naming) -> str:
        """Return the name of our parameter ``name`` in a naming scheme. Raises ``KeyError`` for an unknown name."""
        ...

    def ours(self, name: str, naming: Naming) -> str | None:
        """Return our name for a parameter of a naming scheme; None if it is not part of the family."""
        ...

    def imagenet_anchors(self, names: Iterable[str]) -> set[str]:
        """Return names by which ImageNet weights are found in a file. names: ours."""
        ...

    def from_imagenet(
        self, values: Mapping[str, Any], backbone: str | BackboneShape | BackboneConfig
    ) -> dict[str, Any]:
        """Return ImageNet weights under our names, without the parts that a detector does not use."""
        ...

    def recognize(self, values: Mapping[str, Tensor]) -> str | dict[str, Any] | None:
        """Read the backbone's name or shape from parameters under our names; None for another family.

        Raises ``KeyError`` naming a missing parameter.
        """
        ...

    def to_transformers(self, backbone: str | BackboneShape | BackboneConfig) -> dict[str, Any] | None:
        """Return the ``backbone_config`` for transformers' own backbone class; None if it has only timm's."""
        ...

    def from_transformers(self, config: Mapping[str, Any]) -> str | dict[str, Any] | None:
        """Read the backbone's name or shape from a ``backbone_config``; None for another family.

        Raises ``ValueError`` for a backbone that the family does not support.
        """
        ...


def family(name: str) -> Family:
    """Return the module of a family. name: key of ``architecture.BACKBONES``."""
    return cast(Family, import_module(f"{__name__}.{name}"))


def families() -> list[Family]:
    return [family(name) for name in BACKBONES]
