"""``cdetr dataset split``."""

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from conditional_detr.cli.dataset.convert import tell_written
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
    progress,
)
from conditional_detr.cli.log import say
from conditional_detr.cli.tables import aligned
from conditional_detr.errors import DataError, SettingsError

if TYPE_CHECKING:
    from conditional_detr.config import DataSettings
    from conditional_detr.data.writers import Splits


def command(
    folder: Folder,
    out: NewFolder,
    settings: Overrides = None,
    val: Annotated[float, typer.Option(help="Fraction of the images for validation.")] = 0.2,
    test: Annotated[float, typer.Option(help="Fraction of the images for a test split.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the choice.")] = 0,
    to: Annotated[Layout, typer.Option(help="Layout of the new data set.")] = "coco",
    link: Link = False,
    no_images: NoImages = False,
    as_json: AsJSON = False,
) -> None:
    """Divide a data set without validation split, such as: cdetr dataset split data/ divided/ --val 0.2

    Copies of an image stay together, and every category is divided in these proportions as well as possible. The same images
    and seed give the same splits.
    """
    from conditional_detr.data.check import tell_problems
    from conditional_detr.data.conversion import check_new, check_outside, write_data
    from conditional_detr.data.layouts import SPLITS
    from conditional_detr.data.reading import read_split
    from conditional_detr.data.splitting import divided

    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise SettingsError(
            f"--val {val:g} and --test {test:g} must be fractions that leave images for training; change them"
        )
    images = chosen_images(link, no_images)
    values = data_settings(folder, settings)
    check_new(out)
    check_outside(out, values)
    _check_undivided(values, folder)
    with progress() as stage:
        data = read_split(values, "train", stage("reading headers"))
        tell_problems(data, logging.getLogger(__name__))
        fractions = [1 - val - test, val, *([test] if test else [])]
        splits = dict(zip(SPLITS, divided(data, fractions, seed), strict=False))
        notes = write_data(splits, out, to, images, stage("writing images"))
    tell_written(splits, out, to, notes, as_json)
    if not as_json:
        for line in _table(splits):
            say(line)


def _check_undivided(values: "DataSettings", folder: str) -> None:
    """Raise ``DataError`` when the data set has splits already."""
    from conditional_detr.data.reading import existing_splits

    others = [split for split in existing_splits(values) if split != "train"]
    if "val" in others:
        raise DataError(
            f"{folder} has a validation split already; set data.val=none to divide its training images only"
        )
    if others:
        say(f"note: the {others[0]} split of {folder} is left out", err=True)


def _table(splits: "Splits") -> list[str]:
    """Return the numbers of objects of each category in each split as lines."""
    from conditional_detr.data.inspection.statistics import statistics

    numbers = [statistics(data).classes for data in splits.values()]
    rows = [["objects", *splits]]
    rows += [[each[0].name, *(str(count.objects) for count in each)] for each in zip(*numbers, strict=True)]
    return aligned(rows, {0})
