"""The reference page of all settings, made from their types and descriptions."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from conditional_detr.architecture import BackboneConfig, BackboneShape, backbone_names
from conditional_detr.config import setting_fields
from conditional_detr.config.settings import Settings

# Unit of every numeric setting; "number" is for what is counted in itself or has no dimension.
UNITS: dict[str, tuple[str, ...]] = {
    "pixels": (
        "data.short_sides", "data.max_size", "data.crop_short_sides", "data.crop_min", "data.crop_max",
        "data.eval_short_side", "data.eval_max_size",
    ),
    "channels": ("model.channels", "model.feed_forward"),
    "heads": ("model.heads",),
    "layers": ("model.encoder_layers", "model.decoder_layers"),
    "queries": ("model.queries",),
    "stages": ("model.frozen_stages",),
    "probability": (
        "model.dropout", "model.class_prior", "data.flip", "data.crop", "data.scale_jitter", "data.mosaic",
        "data.vertical_flip", "data.quarter_turns", "data.color_jitter",
    ),
    "fraction of the images": ("data.val_fraction",),
    "fraction of a box": ("data.min_visible",),
    "fraction of the run": ("data.mosaic_until", "train.drop_at", "train.flat_until"),
    "fraction of the initial rate": ("train.cosine_end",),
    "fraction of the color circle": ("data.hue",),
    "factor": ("data.scale_min", "data.scale_max", "data.brightness", "data.contrast", "data.saturation"),
    "epochs": ("train.epochs", "evaluation.every"),
    "optimizer steps": (
        "train.steps", "train.max_steps", "train.warmup_steps", "train.ema_ramp", "train.log_every", "train.save_every",
    ),
    "minutes": ("train.minutes",),
    "evaluations": ("train.patience",),
    "images": ("train.batch_size", "train.base_batch_size", "evaluation.batch_size"),
    "forward passes": ("train.accumulate",),
    "per step": ("train.lr", "train.lr_backbone", "train.lr_class_head"),
    "groups": ("train.query_groups",),
    "processes": ("data.workers",),
    "detections": ("evaluation.max_dets",),
    "none": (
        "model.position_temperature", "loss.class_cost", "loss.l1_cost", "loss.giou_cost", "loss.class_weight",
        "loss.l1_weight", "loss.giou_weight", "loss.focal_alpha", "loss.focal_gamma", "loss.mal_gamma",
        "loss.no_object_weight", "train.weight_decay", "train.clip_norm", "train.ema_decay", "train.seed",
    ),
}  # fmt: skip
_UNIT = {key: unit for unit, keys in UNITS.items() for key in keys}
_NAMES: dict[Any, str] = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}
_BOUNDS = (("ge", "from {}"), ("gt", "above {}"), ("le", "to {}"), ("lt", "below {}"))


def numeric_settings() -> list[str]:
    """Return the keys whose values are numbers or lists of numbers."""
    numbers = {"whole number", "number", "list of whole number"}
    return [key for key, field in setting_fields().items() if numbers & set(_types(key, field))]


def page() -> str:
    """Return the page in Markdown."""
    parts = [
        "# Settings",
        "<!-- Written by scripts/docs/generate.py from src/conditional_detr/config/settings.py; do not edit. -->",
        "Every setting is a field of `conditional_detr.config.Settings`. Give it as `key=value` after the name of a preset or of a YAML\n"
        "file: `cdetr train conditional-detr_tiny_photos data.root=/data/mine train.minutes=10`. `cdetr train --settings` prints the same list.\n"
        "A wrong key or value is refused before anything starts. [training.md](../training.md) explains the common ones.",
        "*Default* is the value without a preset, the published R50 recipe. `null` means: not set.",
    ]
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts += [f"## `{section}`", inspect.cleandoc(field.annotation.__doc__ or ""), _table(section)]
    return "\n\n".join(parts) + "\n"


def _table(section: str) -> str:
    rows = ["| key | meaning | type | unit | allowed | default |", "|---|---|---|---|---|---|"]
    for key, field in setting_fields().items():
        if key.startswith(f"{section}."):
            cells = (
                f"`{key}`", _linked(field.description or ""), ", or ".join(_types(key, field)), _UNIT.get(key, "-"),
                _allowed(key, field), f"`{typed(field.default)}`",
            )  # fmt: skip
            rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def _linked(text: str) -> str:
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](../\1)", text)


def typed(value: object) -> str:
    """Return a default as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return '""' if value == "" else str(value)


# --- types ---


def _alternatives(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield the plain types of an annotation, each with the constraints on it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *own = get_args(annotation)
        yield from _alternatives(inner, (*metadata, *own))
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each, metadata)
    else:
        yield annotation, metadata


def _types(key: str, field: FieldInfo) -> list[str]:
    if key == "model.backbone":
        return ["name", "shape of a ResNet", "configuration of a backbone of transformers"]
    return [_type(each) for each, _ in _alternatives(field.annotation)]


def _type(annotation: Any) -> str:
    if annotation is NoneType:
        return "null"
    if get_origin(annotation) is Literal:
        return "choice"
    if get_origin(annotation) is tuple:
        ((inner, _),) = _alternatives(get_args(annotation)[0])
        return f"list of {_type(inner)}"
    return _NAMES[annotation]


def _allowed(key: str, field: FieldInfo) -> str:
    if key == "model.backbone":
        shape, config = (
            ", ".join(f"`{name}`" for name in each.model_fields) for each in (BackboneShape, BackboneConfig)
        )
        return (
            f"{', '.join(f'`{name}`' for name in backbone_names())}; or the keys {shape}; or {config} and its own keys"
        )
    allowed: list[str] = []
    for each, metadata in _alternatives(field.annotation, tuple(field.metadata)):
        if get_origin(each) is tuple:
            (inner,) = _alternatives(get_args(each)[0])
            text = _limits(*inner)
            allowed.append(f"each {text}" if text else "")
        else:
            allowed.append(_limits(each, metadata))
    return ", or ".join(dict.fromkeys(text for text in allowed if text)) or "any"


def _limits(annotation: Any, metadata: tuple[Any, ...]) -> str:
    """Return the allowed values of a plain type."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if annotation is bool:
        return "`true`, `false`"
    if annotation not in (int, float):
        return ""
    flat = [each for item in metadata for each in getattr(item, "metadata", [item])]
    if any(hasattr(each, "gt") for each in flat):  # stricter than a "ge" of the type below
        flat = [each for each in flat if not hasattr(each, "ge")]
    words = [text.format(f"{getattr(each, name):,}") for name, text in _BOUNDS for each in flat if hasattr(each, name)]
    words += [f"to {largest:,}" for largest in map(_largest, flat) if largest is not None]
    return " ".join(words)


def _largest(check: Any) -> int | None:
    """Return the bound of ``architecture.at_most``."""
    function = getattr(check, "func", None)
    return inspect.getclosurevars(inspect.unwrap(function)).nonlocals.get("largest") if function else None
