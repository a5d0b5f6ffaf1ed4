"""Writers of data layouts. A writer is one module here and one entry in ``WRITERS``."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.layouts import Split

WRITERS = ("coco", "yolo", "voc")

Splits = Mapping[Split, Annotations]
ImageNames = Mapping[Split, Sequence[str]]  # names of the image files in the new data set, relative to their folder


@runtime_checkable
class Writer(Protocol):
    """Interface of a writer module."""

    IMAGES: str
    """folder of the images, in which {split} stands for the split"""

    FLAT: bool
    """whether all images are in one folder, and annotations are found by the name of the image without its suffix"""

    def write(self, out: Path, splits: Splits, names: ImageNames) -> list[str]:
        """Write the annotations into an empty folder. Return sentences about what the layout can't hold.

        The splits have equal categories. Raises ``DataError`` for names of categories that the layout can't hold.
        """
        ...


def load(name: str) -> Writer:
    """Import the writer of a layout named in ``WRITERS``."""
    return cast(Writer, import_module(f"{__name__}.{name}"))
