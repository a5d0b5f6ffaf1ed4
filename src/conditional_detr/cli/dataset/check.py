"""``cdetr dataset check``."""

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conditional_detr.cli.dataset.options import AsJSON, Folder, Overrides, data_settings, progress, source_setting
from conditional_detr.cli.log import say
from conditional_detr.cli.tables import aligned
from conditional_detr.errors import DataError

if TYPE_CHECKING:
    from conditional_detr.data.inspection import Copy, Inspection
    from conditional_detr.data.inspection.statistics import Spread, Statistics
    from conditional_detr.data.layouts import Split

SHOWN = 10  # images, groups of copies and warnings of one kind that are printed; --json has all
SHOWN_CLASSES = 100


def command(
    folder: Folder,
    settings: Overrides = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for plots.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read headers only: miss damaged images and those that look alike.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Report what a data set holds, everything that is wrong with it, copies of images, and settings that suit it.

    The exit code is 2 if something would stop training, and 0 otherwise, also with warnings.
    """
    from conditional_detr.data.conversion import check_outside
    from conditional_detr.data.inspection import inspect

    values = data_settings(folder, settings)
    if out is not None:
        check_outside(out, values)
    with progress() as stage:
        found = inspect(values, quick, stage("reading headers"), None if quick else stage("decoding images"))
    pictures = [] if out is None else _draw(found, out)
    if as_json:
        typer.echo(json.dumps({**found.to_dict(), "pictures": [str(file) for file in pictures]}))
    else:
        _report(found, source_setting(folder))
        for file in pictures:
            say(f"{file.stem:14}{file}")
    if found.refusals:
        more = f" (and {len(found.refusals) - 1} more)" if len(found.refusals) > 1 else ""
        raise DataError(f"{found.refusals[0].sentence}{more}")


def _draw(found: "Inspection", out: Path) -> list[Path]:
    """Draw the statistics and the images that look alike, and return the files."""
    from conditional_detr.data.inspection.pictures import page_of_files, plot_statistics
    from conditional_detr.drawing import write_picture

    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    if found.splits:
        files.append(out / "statistics.png")
        plot_statistics(found.splits, files[-1])
    if groups := found.alike[:SHOWN]:
        files.append(out / "alike.jpg")
        captions = [
            (each.path, f"{number}: {each.split} {each.path.name}")
            for number, group in enumerate(groups, 1)
            for each in group[:4]
        ]
        write_picture(page_of_files(captions), files[-1], quality=90)
    return files


def _report(found: "Inspection", source: str) -> None:
    numbers = found.statistics
    if numbers:
        for line in aligned([["", *numbers], *_rows(list(numbers.values()))], {0}):
            say(line)
        say("")
        _print_classes(numbers)
    for sentence, images in found.refusals:
        say(f"stops training: {sentence}")
        _print_some([f"  {image}" for image in images] if len(images) > 1 else [])
    for problem in found.problems:
        say(f"{problem.level}: {problem}")
        _print_some([f"  {image}" for image in problem.images] if len(problem.images) > 1 else [])
    for warning in found.warnings:
        say(f"warning: {warning}")
    _print_copies("equal files", found.equal)
    _print_copies("images that look alike", found.alike)
    if found.suggestions:
        say("", "suggested settings")
        for line in aligned([[each.override, each.reason] for each in found.suggestions], {0, 1}):
            say(f"  {line}")
        words = ["cdetr", "train", "PRESET", source, *(each.override for each in found.suggestions)]
        say("", f"to paste: {shlex.join(words)}")


def _rows(splits: "Sequence[Statistics]") -> list[list[str]]:
    """Return the rows of the table of numbers, one column per split."""

    def row(name: str, values: Iterable[object]) -> list[str]:
        return [name, *map(str, values)]

    return [
        row("images", (each.images for each in splits)),
        row("  without objects", (each.empty for each in splits)),
        row("  width, smallest / median / largest", (_range(each.width) for each in splits)),
        row("  height", (_range(each.height) for each in splits)),
        row("  width / height", (_range(each.aspect) for each in splits)),
        row("objects", (each.objects for each in splits)),
        row("  in an image, fewest / median / most", (_range(each.objects_per_image) for each in splits)),
        row("  small / medium / large, as COCO", (f"{each.small} / {each.medium} / {each.large}" for each in splits)),
        row("  side in pixels, 5% / median / 95%", (_middle(each.side) for each in splits)),
        row("  side in % of the image", (_middle(each.relative_side, 100.0) for each in splits)),
        row("  width / height", (_middle(each.box_aspect) for each in splits)),
        row("crowds", (each.crowds for each in splits)),
        row("unusable boxes", (each.unusable for each in splits)),
    ]


def _range(spread: "Spread") -> str:
    return " / ".join(f"{value:.4g}" for value in (spread.smallest, spread.middle, spread.largest))


def _middle(spread: "Spread | None", factor: float = 1.0) -> str:
    if spread is None:
        return "-"
    return " / ".join(f"{factor * value:.3g}" for value in (spread.low, spread.middle, spread.high))


def _print_classes(numbers: "dict[Split, Statistics]") -> None:
    """Print the objects and images of each category in each split that has the same categories."""
    first = next(iter(numbers.values()))
    columns = {split: each.classes for split, each in numbers.items()}
    same = [(each.id, each.name) for each in first.classes]
    columns = {split: each for split, each in columns.items() if [(c.id, c.name) for c in each] == same}
    head = ["id", "category", *(f"{split} {what}" for split in columns for what in ("objects", "images"))]
    rows = [
        [str(counts[0].id), counts[0].name, *(str(n) for count in counts for n in (count.objects, count.images))]
        for counts in zip(*columns.values(), strict=True)
    ]
    for line in aligned([head, *rows[:SHOWN_CLASSES]], {1}):
        say(line)
    if len(rows) > SHOWN_CLASSES:
        say(f"... and {len(rows) - SHOWN_CLASSES} more (--json lists all)")
    say("")


def _print_copies(what: str, groups: "Sequence[Sequence[Copy]]") -> None:
    """Print groups of copies, those in several splits first."""
    if not groups:
        return
    across = [group for group in groups if len({each.split for each in group}) > 1]
    say(f"{what}: {len(groups)} group{'s' if len(groups) > 1 else ''}, {len(across)} in several splits")
    ordered = [*across, *(group for group in groups if group not in across)]
    lines = ["  " + ", ".join(f"{each.split} {each.path}" for each in group[:4]) for group in ordered]
    _print_some(
        [
            f"{line}, and {len(group) - 4} more" if len(group) > 4 else line
            for line, group in zip(lines, ordered, strict=True)
        ]
    )


def _print_some(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        say(line)
    if len(lines) > SHOWN:
        say(f"  ... and {len(lines) - SHOWN} more (--json lists all)")
