"""``cdetr dataset convert``."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conditional_detr.cli.dataset.options import (
    AsJSON,
    Folder,
    Layout,
    Link,
    NewFolder,
    NoImages,
    Overrides,
    chosen_images,
    data_settings,
    images_of,
    progress,
)
from conditional_detr.cli.log import say

if TYPE_CHECKING:
    from conditional_detr.data.writers import Splits


def command(
    folder: Folder,
    out: NewFolder,
    settings: Overrides = None,
    to: Annotated[Layout, typer.Option(help="Layout of the new data set.")] = "coco",
    link: Link = False,
    no_images: NoImages = False,
    as_json: AsJSON = False,
) -> None:
    """Write all splits of a data set in another layout, such as: cdetr dataset convert voc/ coco/ --to coco

    Only images, boxes, categories, crowds and areas are converted. What the new layout can't hold is told.
    """
    from conditional_detr.data.check import read_splits, tell_problems
    from conditional_detr.data.conversion import check_new, check_outside, write_data

    images = chosen_images(link, no_images)
    values = data_settings(folder, settings)
    check_new(out)
    check_outside(out, values)
    with progress() as stage:
        splits = read_splits(values, stage("reading headers"))
        for data in splits.values():
            tell_problems(data, logging.getLogger(__name__))
        notes = write_data(splits, out, to, images, stage("writing images"))
    tell_written(splits, out, to, notes, as_json)
    if no_images and not as_json:
        places = {key: data.folder for key, data in splits.items() if key != "test"}
        say(f"read it with: data.root={out} {' '.join(f'data.{key}_images={place}' for key, place in places.items())}")


def tell_written(splits: "Splits", out: Path, layout: str, notes: list[str], as_json: bool) -> None:
    """Print what a new data set holds, and what was lost."""
    if as_json:
        numbers = {key: {"images": len(data), "objects": int(data.usable.sum())} for key, data in splits.items()}
        typer.echo(json.dumps({"folder": str(out), "layout": layout, "splits": numbers, "notes": notes}))
        return
    say(f"{images_of({key: len(data) for key, data in splits.items()})} in {out}")
    for note in notes:
        say(f"note: {note}")
