"""``cdetr dataset shapes``."""

from pathlib import Path
from typing import Annotated

import typer

from conditional_detr.cli.log import say


def command(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    images: Annotated[int, typer.Option(min=1, help="Number of training images.")] = 2000,
    val_images: Annotated[int, typer.Option(min=1, help="Number of validation images.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the images.")] = 0,
) -> None:
    """Generate the data set "shapes" in COCO layout: images of 96 x 96 pixels with rectangles, ellipses and triangles."""
    from conditional_detr.data.shapes import write_shapes

    write_shapes(out, {"train": images, "val": val_images}, seed)
    say(f"{images} training and {val_images} validation images in {out}")
    say(f"train with: cdetr train conditional-detr_tiny_shapes data.root={out}")
