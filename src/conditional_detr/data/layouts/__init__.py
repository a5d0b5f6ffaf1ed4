"""Data layouts, which list images and objects. A layout is one module here and one entry in ``LAYOUTS``."""

from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

from conditional_detr.config import DataSettings
from conditional_detr.data.listing import Listing

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
LAYOUTS = ("coco", "voc", "yolo", "huggingface")


@runtime_checkable
class Layout(Protocol):
    """Interface of a layout module."""

    LOOKED_FOR: str
    """files that identify the layout, for messages"""

    def recognize(self, root: Path, split: Split) -> bool:
        """Tell whether a folder, or a file such as data.yaml, contains this split in this layout."""
        ...

    def read(self, settings: DataSettings, split: Split) -> Listing:
        """List the images and objects of a split. Raises ``DataError`` for invalid annotations and for missing image files."""
        ...


def load(name: str) -> Layout:
    """Import the module of a layout named in ``LAYOUTS``."""
    return cast(Layout, import_module(f"{__name__}.{name}"))
