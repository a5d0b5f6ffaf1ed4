"""What other programs' formats have no field for: written under one key of ours, and read back from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.config import ModelSettings
from conditional_detr.data.transforms import InputSize
from conditional_detr.errors import InputError
from conditional_detr.structures import Categories

STANDARD_TEMPERATURE = ModelSettings().position_temperature


def own_values(checkpoint: Checkpoint) -> dict[str, Any]:
    """Categories and image size, for formats that have no place for them; plain containers only."""
    categories, size = checkpoint.categories, checkpoint.input_size
    return {
        "category_ids": list(categories.ids),
        "category_names": list(categories.names),
        "input_size": {
            "sides": list(size.sides),
            "rule": size.rule,
            "padded": None if size.padded is None else list(size.padded),
            "boxes": size.boxes,
        },
    }


def read_categories(own: Mapping[str, Any]) -> Categories:
    """The categories that ``own_values`` wrote."""
    return Categories(
        tuple(int(id_) for id_ in own["category_ids"]), tuple(str(name) for name in own["category_names"])
    )


def about_input_size(checkpoint: Checkpoint, program: str) -> list[str]:
    """A remark when ``program`` has to be told an image size."""
    size = checkpoint.input_size
    if size == InputSize():
        return []
    return [
        f"the model was made for images of {size.sides} pixels ({size.rule}): set {program}'s preprocessing to that"
    ]


def read_input_size(own: Mapping[str, Any], source: Path) -> InputSize:
    """The image size that ``own_values`` wrote, or the published one. Raises ``InputError``."""
    if "input_size" not in own:
        return InputSize()
    try:
        given = cast(Mapping[str, Any], own["input_size"])
        padded = given["padded"]
        first, second = (int(side) for side in given["sides"])
        return InputSize(
            (first, second), given["rule"], None if padded is None else (int(padded[0]), int(padded[1])), given["boxes"]
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{source}: its image size is damaged ({error!r}); convert the original again") from error


def check_published_network(checkpoint: Checkpoint, program: str) -> None:
    """Raise ``InputError`` when ``program``, which has the published networks only, would compute something else."""
    settings = checkpoint.settings
    published = "sigmoid" if settings.decoder == "conditional" else "softmax"
    different = {
        "a backbone of its own shape": not isinstance(settings.backbone, str),
        f"position_temperature={settings.position_temperature:g}": settings.position_temperature
        != STANDARD_TEMPERATURE,
        f"{settings.classification} classification": settings.classification != published,
        "norm_between_layers": settings.norm_between_layers,
        "boxes relative to the padded image": checkpoint.input_size.boxes != "image",
    }
    for what, is_different in different.items():
        if is_different:
            raise InputError(
                f"{program} does not have {what}, so it can't open this model; convert to huggingface instead"
            )
