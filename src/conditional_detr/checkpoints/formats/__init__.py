"""Checkpoint formats. A format is one module here and one entry in ``FORMATS``."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

if TYPE_CHECKING:
    from conditional_detr.checkpoints.checkpoint import Checkpoint, Given, Parsed, Written
    from conditional_detr.checkpoints.names import Layout

FORMATS = ("official", "mmdetection", "huggingface")


@runtime_checkable
class Format(Protocol):
    """What the module of a format offers. A file is recognized by its parameter names, a folder by its files."""

    LAYOUTS: "tuple[Layout, ...]"
    MARKER: str | None
    """file that marks a folder of this format; None for formats of ``.pth`` files"""

    def read(self, given: "Given") -> "Parsed":
        """Read what a folder or file says. Raises ``CheckpointError``."""
        ...

    def write(self, checkpoint: "Checkpoint", out: Path, timm_backbone: bool | None = None) -> "Written":
        """Write a folder or file. timm_backbone: timm's names for the backbone, in formats that have a choice.

        Raises ``CheckpointError`` for a network that the format's programs do not have.
        """
        ...


def load(name: str) -> Format:
    """Return the module of a format in ``FORMATS``."""
    return cast(Format, import_module(f"{__name__}.{name}"))
