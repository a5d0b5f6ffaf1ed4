"""``cdetr dataset show``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from conditional_detr.cli.dataset.options import AsJSON, Folder, Overrides, data_settings, progress
from conditional_detr.cli.log import say
from conditional_detr.cli.options import check_picture
from conditional_detr.errors import DataError, ImageError, SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 200  # pictures on a page


def command(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Picture to write: .jpg, .png or .pdf.")],
    settings: Overrides = None,
    count: Annotated[int, typer.Option(min=1, max=MOST, help="Number of images.")] = 24,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to show.")] = "train",
    category: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Show images of this category.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the choice.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Draw a page of random images with their boxes, such as: cdetr dataset show /data/coco page.jpg --class dog"""
    from conditional_detr.data.conversion import check_outside
    from conditional_detr.data.inspection.pictures import CELL, annotated, choose_images
    from conditional_detr.data.reading import read_split
    from conditional_detr.drawing import page_of_pictures, write_picture

    values = data_settings(folder, settings)
    check_picture(out, [], "OUT")
    check_outside(out, values)
    if out.exists() and not overwrite:
        raise SettingsError(f"{out} exists; name another file, or replace it with --overwrite")
    with progress() as stage:
        data = read_split(values, split, stage("reading headers"))
        pictures: list[tuple[Image, str]] = []
        for index in choose_images(data, count, seed, category):
            try:
                pictures.append((annotated(data, index), data.file_names[index]))
            except ImageError as error:
                say(f"left out: {error}", err=True)
    if not pictures:
        raise DataError(f"none of the chosen images of {data.source} can be read; run: cdetr dataset check {folder}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_picture(page_of_pictures(pictures, CELL), out, quality=90)
    if as_json:
        typer.echo(json.dumps({"picture": str(out), "images": [name for _, name in pictures]}))
    else:
        say(f"{len(pictures)} of {len(data)} images of {data.source} in {out}")
