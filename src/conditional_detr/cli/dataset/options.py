"""What the commands of ``cdetr dataset`` share: the data set, its settings, writing it, and progress."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from conditional_detr.cli.log import console
from conditional_detr.errors import SettingsError

if TYPE_CHECKING:
    from conditional_detr.config import DataSettings
    from conditional_detr.data.conversion import Images
    from conditional_detr.data.headers import OnDone

Folder = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER",
        help="Folder of a data set, or a data.yaml, as in data.root=FOLDER; or a setting: data.hub=ID.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[key=value ...]", help="Settings of the section data, such as data.layout=voc."),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
NewFolder = Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")]
Layout = Literal["coco", "yolo", "voc"]
Link = Annotated[
    bool,
    typer.Option("--link/--copy", help="Link the images (hard links where possible) instead of copying them."),
]
NoImages = Annotated[bool, typer.Option("--no-images", help="Write annotations only.")]


def source_setting(folder: str) -> str:
    """Return the argument FOLDER as a setting that names the data: itself, or data.root."""
    return folder if folder.startswith("data.") and "=" in folder else f"data.root={folder}"


def data_settings(folder: str, overrides: Sequence[str] | None) -> "DataSettings":
    """Return the settings of a data set. Raises ``SettingsError`` for settings of other sections, and for invalid ones."""
    from conditional_detr.config import settings_from

    given = [source_setting(folder), *(overrides or ())]
    keys = [override.partition("=")[0] for override in given]
    for key, override in zip(keys, given, strict=True):
        if not key.startswith("data.") or keys.count(key) > 1:
            what = "is given twice" if keys.count(key) > 1 else "is no setting of the section data"
            raise SettingsError(f"{override!r:.80} {what}; settings such as data.layout=voc may follow")
    return settings_from({}, given).data


def chosen_images(link: bool, no_images: bool) -> "Images":
    """Return what to do with the images of a data set. Raises ``SettingsError`` for options that contradict each other."""
    if link and no_images:
        raise SettingsError("--link and --no-images contradict each other; leave out one")
    return "none" if no_images else "link" if link else "copy"


@contextmanager
def progress() -> "Generator[Callable[[str], OnDone]]":
    """Yield a function that begins a stage of the work and returns what to call with the numbers of images done and of all.

    It is shown on a terminal only.
    """
    from rich.progress import Progress

    with Progress(console=console(), transient=True, disable=not console().is_terminal) as shown:
        task = shown.add_task("", visible=False)

        def stage(description: str) -> "OnDone":
            return lambda done, total: shown.update(
                task, description=description, completed=done, total=total, visible=True
            )

        yield stage


def images_of(splits: Mapping[str, int]) -> str:
    """Return numbers of images for a sentence: 80 training, 20 validation and 5 test images."""
    names = {"train": "training", "val": "validation", "test": "test"}
    parts = [f"{count} {names[split]}" for split, count in splits.items()]
    return f"{' and '.join([*([', '.join(parts[:-1])] if parts[1:] else []), parts[-1]])} images"
