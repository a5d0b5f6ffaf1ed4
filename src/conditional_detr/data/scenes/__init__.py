"""Generate the data set "scenes": many kinds of objects on many backgrounds, from which a detector learns where objects are."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from conditional_detr.data.generated import Recipe, write_generated
from conditional_detr.data.scenes.kinds import SCENES
from conditional_detr.data.scenes.scene import SIDE, check_size, compose, draw_scene

if TYPE_CHECKING:
    from conditional_detr.data.headers import OnDone

__all__ = ["SCENES", "SIDE", "draw_scene", "write_scenes"]


def write_scenes(
    root: Path,
    images: Mapping[str, int],
    seed: int,
    *,
    size: int = SIDE,
    workers: int = 0,
    on_image: "OnDone | None" = None,
) -> dict[str, int]:
    """Write the data set as a folder in COCO layout, as ``write_generated`` does. Return the number of objects per split.

    images: number of images per split. size: longer side of the images in pixels; their aspect ratios vary. workers: number of
    processes that draw; 0 draws in this one; the files do not depend on it. Raises ``SettingsError`` for a size out of range.
    """
    check_size(size)
    recipe = Recipe("scenes", partial(compose, size=size), SCENES, "JPEG")
    return write_generated(root, recipe, images, seed, workers=workers, on_image=on_image)
