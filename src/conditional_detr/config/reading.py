"""Reading settings: presets, YAML files and ``key=value``, and messages about what is wrong with them."""

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from conditional_detr.config.settings import Settings
from conditional_detr.errors import InputError


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans: a setting may be called no, and a run on."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))


def preset_names() -> list[str]:
    """Names that ``load_settings`` knows."""
    files = resources.files("conditional_detr.config").joinpath("presets").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def load_settings(preset_or_file: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Settings of a preset's name or a YAML file, changed by ``key=value`` overrides.

    Raises ``InputError`` for an unknown preset, file, key or value.
    """
    name = str(preset_or_file)
    path = Path(preset_or_file)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror}); name a preset or an existing file") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not text in UTF-8; save it as such") from error
    elif name in preset_names():
        text = resources.files("conditional_detr.config").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")
    else:
        raise InputError(
            f"{name!r} is neither a preset nor a .yaml file{_did_you_mean(name, preset_names())}; "
            f"presets: {', '.join(preset_names())}"
        )
    try:
        values: Any = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{name} must hold sections with keys (model: {{queries: 100}}), not {type(values).__name__}")
    tree = cast(dict[str, Any], values)
    if name in preset_names():
        tree["preset"] = name
    return settings_from(tree, overrides, name)


def settings_from(values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "settings") -> Settings:
    """Settings of nested values, changed by ``key=value`` overrides. Raises ``InputError``."""
    tree: dict[str, Any] = {
        key: dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"{override!r} is not of the form key=value, such as train.epochs=12")
        section, _, field = key.partition(".")
        if not field:
            raise InputError(f"unknown key {key!r}{_did_you_mean(key, setting_keys())}")
        try:
            value: Any = text if _is_text(section, field) and text != "null" else yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise InputError(f"{key}: {text!r} is not a YAML value") from error
        part: Any = tree.setdefault(section, {})
        if part is None:  # a section that the file names and leaves empty
            part = tree[section] = {}
        if not isinstance(part, dict):
            raise InputError(f"unknown key {key!r}{_did_you_mean(key, setting_keys())}")
        cast(dict[str, Any], part)[field] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise InputError(_sentence(error, source)) from error


def setting_fields() -> dict[str, FieldInfo]:
    """Every dotted key with its type, default and description."""
    return {
        f"{section}.{key}": described
        for section, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key, described in field.annotation.model_fields.items()
    }


def setting_keys() -> list[str]:
    """Every dotted key."""
    return list(setting_fields())


_TEXT = {str(kind) for kind in (str, Path, str | None, Path | None)}


def _is_text(section: str, field: str) -> bool:
    """Whether a setting is a name or path, which is taken as it was typed."""
    described = setting_fields().get(f"{section}.{field}")
    return described is not None and str(described.annotation) in _TEXT


def _sentence(error: ValidationError, source: str) -> str:
    first, *others = error.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"][:2])
    alternatives = [other for other in others if other["loc"][:2] == first["loc"][:2]]
    if first["type"] == "extra_forbidden":
        known = setting_keys() if "." in key else list(Settings.model_fields)
        return f"{source}: unknown key {key!r}{_did_you_mean(key, known)}"
    if first["type"] == "value_error":
        return ": ".join(part for part in (source, key, first["msg"].removeprefix("Value error, ")) if part)
    # A value of several possible types has an error for each of them.
    wanted = " or ".join(_wanted(each) for each in (first, *alternatives))
    return f"{source}: {key}: {wanted}, got {first['input']!r}"


def _wanted(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    inner = ".".join(
        str(part) for part in error["loc"][2:] if isinstance(part, str) and part.isidentifier() and part.islower()
    )
    return f"{inner + ': ' if inner else ''}{message[0].lower()}{message[1:]}"


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
