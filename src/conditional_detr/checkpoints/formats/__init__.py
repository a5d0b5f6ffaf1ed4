"""Checkpoint formats. Each is one module here and one entry in ``FORMATS``."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

if TYPE_CHECKING:
    from conditional_detr.checkpoints.checkpoint import Checkpoint, Given, Parsed, Written
    from conditional_detr.checkpoints.names import Layout

FORMATS = ("official", "mmdetection", "huggingface")


@runtime_checkable
class Format(Protocol):
    """Interface of a format's module. A file is recognized by its parameter names, a folder by its marker file."""

    LAYOUTS: "tuple[Layout, ...]"
    MARKER: str | None
    """file that marks a folder of this format; None for formats of ``.pth`` files"""

    def read(self, given: "Given") -> "Parsed":
        """Read a folder or file. Raises ``CheckpointError`` for contents that are damaged or not supported."""
        ...

    def write(self, checkpoint: "Checkpoint", out: Path, timm_backbone: bool | None = None) -> "Written":
        """Write a folder or file. timm_backbone: use timm's names for the backbone, in formats that offer the choice.

        Raises ``CheckpointError`` for a network that programs of the format do not support.
        """
        ...


def load(name: str) -> Format:
    """Return the module of a format in ``FORMATS``."""
    return cast(Format, import_module(f"{__name__}.{name}"))
