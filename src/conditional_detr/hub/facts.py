"""What a model card tells about a run. Nothing in it is a path of the machine that the run was made on."""

import logging
from dataclasses import dataclass
from pathlib import Path

from conditional_detr.config import Settings, load_settings
from conditional_detr.data.check import read_splits
from conditional_detr.data.images import read_header
from conditional_detr.errors import CheckpointError, ImageError, InputError
from conditional_detr.metrics_file import Metrics
from conditional_detr.runs import RunFolder, best_evaluation, read_metrics

logger = logging.getLogger(__name__)

# Where a run was made, and how it was started.
_PLACES = ("train.output", "train.name", "train.resume", "data.workers", "model.init_from", "data.hub")
# File of a run -> caption, and whether it shows images of the data.
_PICTURES = {
    "plots/curves.png": ("Loss and AP over the epochs", False),
    "plots/predictions.jpg": ("Ground truth beside predictions, in validation images", True),
    "report/curves.png": ("Precision and recall", False),
    "report/confusion.png": ("Confusion of the categories", False),
    "report/errors.png": ("What the errors cost in AP", False),
}


def is_hub_id(text: str) -> bool:
    """Tell whether a text is owner/name by the rules of the hub."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text


@dataclass(frozen=True)
class SplitSize:
    """Number of images and objects of a split."""

    name: str
    images: int
    objects: int


@dataclass(frozen=True)
class Picture:
    """A picture of a run. name: in the repository."""

    file: Path
    name: str
    caption: str


@dataclass(frozen=True)
class RunFacts:
    """What a card tells about a run.

    data: name of the data set. data_id: its id on the hub, if it is from there. init_from: starter or hub id of the initial
    weights. settings: key -> value, those that differ from the defaults. metrics: best evaluation.
    """

    preset: str
    data: str
    data_id: str | None
    splits: list[SplitSize]
    init_from: str | None
    settings: dict[str, str]
    metrics: Metrics | None
    pictures: list[Picture]


def facts_of(run: RunFolder, with_images: bool) -> RunFacts:
    """Return what a card tells about a run. with_images: whether pictures may show images of the data.

    Raises ``CheckpointError`` when the folder is not that of a run.
    """
    if not run.config.is_file():
        raise CheckpointError(f"{run.path} is not a run folder: it has no config.yaml", argument="run")
    settings = load_settings(run.config)
    hub = settings.data.hub
    return RunFacts(
        preset=settings.preset,
        data=_data_name(settings),
        data_id=hub.partition("@")[0] if hub else None,
        splits=_splits(settings),
        init_from=_public_source(settings),
        settings=_changed_settings(settings),
        metrics=best_evaluation(read_metrics(run.metrics, void=True)),
        pictures=[
            Picture(run.path / name, f"pictures/{name.replace('/', '-')}", caption)
            for name, (caption, shows_images) in _PICTURES.items()
            if (with_images or not shows_images) and _is_own_picture(run.path, name)
        ],
    )


def _is_own_picture(run: Path, name: str) -> bool:
    """Tell whether a picture is in the run itself, because a link could publish any file of this machine."""
    path = run / name
    if not path.is_file():
        return False
    try:
        read_header(path)
        own = path.resolve() == run.resolve() / name
    except ImageError:
        own = False
    if not own:
        logger.warning(f"{path} is a link or no picture, and is left out of the model card")
    return own


def _data_name(settings: Settings) -> str:
    """Return the id of the data set on the hub, or the name of its folder alone."""
    data = settings.data
    if data.hub:
        return data.hub
    if data.root is not None:
        root = data.root.resolve()
        return root.stem if root.suffix in (".yaml", ".yml") else root.name
    return data.train_annotations.stem if data.train_annotations is not None else "unknown"


def _splits(settings: Settings) -> list[SplitSize]:
    """Count images and objects; none where the data is no longer there or can't be read."""
    try:
        splits = read_splits(settings.data)
    except (InputError, OSError) as error:
        logger.warning(f"the model card does not count the images, because the data can't be read: {error}")
        return []
    return [SplitSize(name, len(data), int(data.object_counts.sum())) for name, data in splits.items()]


def _public_source(settings: Settings) -> str | None:
    """Return where the initial weights are from, if everybody can have them: a starter or a hub id. Never a path."""
    source = settings.model.init_from
    if source is None or source.startswith("starter:"):
        return source
    hub_id = source.partition("@")[0]
    return source if is_hub_id(hub_id) and _was_downloaded(hub_id) else None


def _was_downloaded(hub_id: str) -> bool:
    """Tell whether this machine has a model of the hub. A name alone may also be a folder that existed where the run was started."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)


def _changed_settings(settings: Settings) -> dict[str, str]:
    changed: dict[str, str] = {}
    for section, default in Settings():
        if section == "preset":
            continue
        for key, value in getattr(settings, section):
            name = f"{section}.{key}"
            if value != getattr(default, key) and name not in _PLACES and not isinstance(value, Path):
                changed[name] = _shown(value)
    return changed


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
