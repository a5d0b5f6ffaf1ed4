"""``cdetr dataset show``."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from conditional_detr.cli.dataset.options import AsJSON, Folder, Overrides, data_settings, progress
from conditional_detr.cli.log import say
from conditional_detr.cli.options import check_picture
from conditional_detr.errors import SettingsError

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
    from conditional_detr.data.pictures import choose_images, page_of_images
    from conditional_detr.data.reading import read_split
    from conditional_detr.drawing import write_picture

    values = data_settings(folder, settings)
    check_picture(out, [], "OUT")
    check_outside(out, values)
    if out.exists() and not overwrite:
        raise SettingsError(f"{out} exists; name another file, or replace it with --overwrite")
    with progress() as stage:
        data = read_split(values, split, stage("reading headers"))
        chosen = choose_images(data, count, seed, category)
        page = page_of_images([(data, index) for index in chosen])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_picture(page, out, quality=90)
    if as_json:
        typer.echo(json.dumps({"picture": str(out), "images": [data.file_names[index] for index in chosen]}))
    else:
        say(f"{len(chosen)} of {len(data)} images of {data.source} in {out}")
