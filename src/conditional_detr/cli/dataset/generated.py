"""What the commands share that generate data sets: their options, and what they print."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from conditional_detr.cli.dataset.options import images_of, progress
from conditional_detr.cli.log import say
from conditional_detr.text import counted

TrainImages = Annotated[int, typer.Option("--images", min=1, help="Number of training images.")]
ValImages = Annotated[int, typer.Option(min=1, help="Number of validation images.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed of the images.")]


def generate(
    write: Callable[..., Mapping[str, int]], images: Mapping[str, int], out: Path, advice: str, as_json: bool
) -> None:
    """Write a data set with progress, and print what it holds and an advice.

    write: takes the number of images per split, and ``on_image``, which is called after each image. It returns the number of
    objects per split.
    """
    with progress() as stage:
        objects = write(images=images, on_image=stage("drawing images"))
    if as_json:
        splits = {split: {"images": count, "objects": objects[split]} for split, count in images.items()}
        typer.echo(json.dumps({"folder": str(out), "layout": "coco", "splits": splits}))
        return
    say(f"{images_of(images)} with {counted(sum(objects.values()), 'object')} in {out}")
    say(advice)
