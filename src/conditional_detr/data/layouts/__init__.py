"""Data layouts, which read folders into ``Annotations``. A layout is one module here and one entry in ``LAYOUTS``."""

from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.errors import DataError

Split = Literal["train", "val"]
LAYOUTS = ("coco",)


@runtime_checkable
class Layout(Protocol):
    """Interface of a layout module."""

    LOOKED_FOR: str
    """files that identify the layout, for messages"""

    def recognize(self, root: Path, split: Split) -> bool:
        """Tell whether a folder contains this split in this layout."""
        ...

    def read(self, settings: DataSettings, split: Split) -> Annotations:
        """Read a split. Raises ``DataError`` for invalid annotations and for missing image files."""
        ...


def load(name: str) -> Layout:
    """Import the module of a layout named in ``LAYOUTS``."""
    return cast(Layout, import_module(f"{__name__}.{name}"))


def read_data(settings: DataSettings) -> tuple[Annotations, Annotations | None]:
    """Read training and validation data; None for the second with ``data.val=none``. Raises as ``read_split`` does."""
    return read_split(settings, "train"), None if settings.val == "none" else read_split(settings, "val")


def read_split(settings: DataSettings, split: Split) -> Annotations:
    """Read the annotations of a split. Raises ``DataError`` for invalid or missing annotations and missing image files."""
    annotations = settings.train_annotations if split == "train" else settings.val_annotations
    root = settings.root
    if annotations is not None:
        return load("coco").read(settings, split)
    if root is None:
        raise DataError(f"no data: set data.root to a COCO folder, or data.{split}_annotations and data.{split}_images")
    if not root.is_dir():
        raise DataError(f"data.root {root} is not a folder; give the folder that holds annotations/ or train/")
    found = [name for name in LAYOUTS if load(name).recognize(root, split)]
    if not found:
        looked = "; ".join(f"{name}: {load(name).LOOKED_FOR}" for name in LAYOUTS)
        raise DataError(f"{root} holds no {split} annotations (looked for {looked}); set data.{split}_annotations")
    return load(found[0]).read(settings, split)
