"""``cdetr dataset scenes``."""

from functools import partial
from typing import Annotated

import typer

from conditional_detr.cli.dataset.generated import Seed, TrainImages, ValImages, generate
from conditional_detr.cli.dataset.options import AsJSON, NewFolder


def command(
    out: NewFolder,
    images: TrainImages = 20000,
    val_images: ValImages = 1000,
    size: Annotated[int, typer.Option(help="Longer side of the images in pixels.")] = 192,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(help="Number of processes that draw; 0 draws in this one.")] = 2,
    as_json: AsJSON = False,
) -> None:
    """Generate the data set "scenes" in COCO layout: objects of many kinds and sizes on many backgrounds, to pre-train on.

    The images depend on the seed and the size, not on the number of processes.
    """
    from conditional_detr.data.scenes import write_scenes

    write = partial(write_scenes, out, seed=seed, size=size, workers=workers)
    advice = f"settings that suit it: cdetr dataset check {out}"
    generate(write, {"train": images, "val": val_images}, out, advice, as_json)
