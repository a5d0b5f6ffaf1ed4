"""``preprocessor_config.json``: how transformers resizes, normalizes and pads images."""

import logging
import reprlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from conditional_detr.checkpoints.checkpoint import OWN_KEY
from conditional_detr.data.images import IMAGENET_MEAN, IMAGENET_STD
from conditional_detr.errors import CheckpointError
from conditional_detr.files import read_json
from conditional_detr.input_size import BoxFrame, InputSize, SizeRule
from conditional_detr.record import ModelRecord, read_record

logger = logging.getLogger(__name__)

FILE = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"  # with the preprocessor in it, as transformers 5 writes for some models
# rule of ``InputSize`` -> keys of the processor's size
_SIZE_KEYS: dict[SizeRule, tuple[str, str]] = {
    "transformers": ("shortest_edge", "longest_edge"),
    "published": ("shortest_edge", "longest_edge"),
    "fit": ("max_height", "max_width"),
    "stretch": ("height", "width"),
}


def preprocessor_config(record: ModelRecord, model_class: str) -> dict[str, Any]:
    """Return the configuration of transformers' image processor. model_class: "Detr" or "ConditionalDetr".

    It has a record of its own, because a processor and a model are saved and copied apart.
    """
    size, own = record.input_size, record.to_dict()
    padded = {} if size.padded is None else {"pad_size": {"height": size.padded[0], "width": size.padded[1]}}
    return {
        "image_processor_type": f"{model_class}ImageProcessor",
        "format": "coco_detection",
        "do_resize": True,
        "size": dict(zip(_SIZE_KEYS[size.rule], size.sides, strict=True)),
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "do_pad": True,
        **padded,
        OWN_KEY: {key: own[key] for key in ("version", "input_size")},
    }


def read_size(folder: Path, recorded: InputSize | None, boxes: BoxFrame | None) -> InputSize:
    """Return the input size of a checkpoint folder: that of its preprocessor, without one ``recorded`` or transformers' default.

    recorded: the input size in the model's own record. boxes: what predicted boxes are relative to, if the caller says so. Raises
    ``CheckpointError`` for preprocessing that is damaged or not supported.
    """
    remedy = "give a complete checkpoint folder, or copy it again"
    if (file := folder / _PROCESSOR).exists():  # transformers looks here first
        nested: Any = read_json(file, CheckpointError, remedy).get("image_processor")
        if isinstance(nested, dict):
            return read_input_size(cast("dict[str, Any]", nested), boxes, file)
    if (file := folder / FILE).exists():
        return read_input_size(read_json(file, CheckpointError, remedy), boxes, file)
    size = recorded or InputSize(rule="transformers")
    where = f"{size.rule}, as config.json records" if recorded else "the default of transformers"
    logger.warning(f"{folder} has no {FILE}: images are scaled to {size.sides} pixels ({where})")
    return replace(size, boxes=boxes or size.boxes)


def read_input_size(config: Mapping[str, Any], boxes: BoxFrame | None, file: Path) -> InputSize:
    """Read the input size from the configuration of a preprocessor.

    The input size under our own key is used only if it has the same sizes, because transformers keeps our key when it saves
    other sizes. boxes: what predicted boxes are relative to, if the caller says so. Raises ``CheckpointError`` for
    preprocessing that is not supported.
    """
    expected = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD), "resample": 2}
    expected |= dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    for key, value in expected.items():
        if config.get(key, value) != value:
            given = reprlib.repr(config[key])
            raise CheckpointError(f"{file}: {key}={given} is not supported; the published models need {value}")
    factor = config.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or not abs(factor - 1 / 255) <= 1e-6:
        raise CheckpointError(f"{file}: rescale_factor={reprlib.repr(factor)} is not supported; it must be 1/255")
    size: Any = config.get("size", {})
    if type(size) is int:  # form of early releases
        size = {"shortest_edge": size}
    if isinstance(size, dict) and "shortest_edge" in size and "longest_edge" not in size:
        size = {**size, "longest_edge": config.get("max_size", InputSize().sides[1])}
    pad: Any = config.get("pad_size") if config.get("do_pad", True) else None
    try:
        rules: list[SizeRule] = [rule for rule, keys in _SIZE_KEYS.items() if all(size.get(key) for key in keys)]
        sides = _pixels(size, _SIZE_KEYS[rules[0]])
        padded = None if pad is None else _pixels(pad, ("height", "width"))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file}: size must have shortest_edge and longest_edge, or max_height and max_width, or height and width, in pixels; "
            f"got {reprlib.repr(size)} and pad_size {reprlib.repr(pad)}"
        ) from error
    try:
        given = InputSize(sides, rules[0], padded)
    except ValueError as error:
        raise CheckpointError(
            f"{file}: {error}; correct size {reprlib.repr(size)} or pad_size {reprlib.repr(pad)}"
        ) from error
    stored = read_record(config.get(OWN_KEY), file).input_size or _stored_by_version_0(config, sides, padded, file)
    if stored is not None and (stored.sides, stored.padded) == (sides, padded):
        return replace(stored, boxes=boxes or stored.boxes)
    if boxes is None and padded is not None:
        # transformers normalizes targets by the padded image (its PR 28363), and its guide trains without a mask.
        boxes = "padded"
        warnings.warn(
            f"{file} pads images to {padded[0]} x {padded[1]}: boxes are assumed to be relative to the padded image, and "
            f"padding not to be masked, as in transformers' guide to fine-tuning; otherwise give "
            f"boxes='padded-with-mask' or boxes='image'",
            stacklevel=2,
        )
    return replace(given, boxes=boxes or "image")


def _stored_by_version_0(
    config: Mapping[str, Any], sides: tuple[int, int], padded: tuple[int, int] | None, file: Path
) -> InputSize | None:
    """Read the rule and the reference of boxes that version 0.1.0 wrote into this file."""
    own = config.get(OWN_KEY)
    if not isinstance(own, dict) or any(own.get(key) != config.get(key) for key in ("size", "pad_size")):
        return None
    try:
        return InputSize(sides, own["rule"], padded, own["boxes"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{file}: its model record is damaged ({error!r}); convert the original again") from error


def _pixels(size: Mapping[str, Any], keys: tuple[str, str]) -> tuple[int, int]:
    """Return two lengths in pixels; 800.0 counts as 800. Raises ``TypeError`` when one is no whole number."""
    for key in keys:
        whole = type(size[key]) is int or (isinstance(size[key], float) and size[key].is_integer())
        if not whole or abs(size[key]) >= 2**31:
            raise TypeError(f"{key} is no number of pixels")
    return int(size[keys[0]]), int(size[keys[1]])
