"""What settings and presets are for, for ``cdetr train --settings`` and ``--presets``."""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple, cast

from conditional_detr.architecture import backbone_names
from conditional_detr.config.reading import preset_names, setting_fields, setting_keys
from conditional_detr.config.settings import Settings
from conditional_detr.errors import SettingsError, did_you_mean

Schema = Mapping[str, Any]
_TYPES = {"boolean": "true or false", "integer": "whole number", "number": "number", "null": "null"}
_SENTENCE = re.compile(r".*?\.(?=\s|$)", re.DOTALL)


class SettingHelp(NamedTuple):
    """A setting. default: as it is typed. values: its type and the values that it takes."""

    key: str
    default: str
    values: str
    explanation: str


class PresetHelp(NamedTuple):
    """A preset, and what it is for."""

    name: str
    purpose: str


def preset_help() -> list[PresetHelp]:
    """Return every preset with the first sentence of the comment at the top of its file."""
    folder = resources.files("conditional_detr.config").joinpath("presets")
    return [PresetHelp(name, _purpose(folder.joinpath(f"{name}.yaml").read_text("utf-8"))) for name in preset_names()]


def _purpose(text: str) -> str:
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comment = " ".join(line.removeprefix("#").strip() for line in lines[:end])
    found = _SENTENCE.match(comment)
    return found[0] if found else comment


def find_settings(words: Sequence[str] = ()) -> list[SettingHelp]:
    """Return the settings whose key contains each of the words, or whose explanation has one that begins with it.

    Without words, return all. Raises ``SettingsError`` when none matches.
    """
    found = [each for each in map(_help, setting_keys()) if all(_matches(each, word) for word in words)]
    if not found:
        query = " ".join(words)
        raise SettingsError(f"no setting matches {query!r}{did_you_mean(query, setting_keys())}")
    return found


def _matches(each: SettingHelp, word: str) -> bool:
    word = word.lower()
    return word in each.key or re.search(rf"\b{re.escape(word)}", each.explanation.lower()) is not None


def _help(key: str) -> SettingHelp:
    field, (section, _, name) = setting_fields()[key], key.partition(".")
    whole = Settings.model_json_schema()
    schema = _definition(whole, whole["properties"][section])["properties"][name]
    values = _values(whole, schema)
    if key == "model.backbone":
        values = values.replace("text", f"one of {', '.join(backbone_names())}")
    return SettingHelp(key, _typed(field.default), values, field.description or "")


def _definition(whole: Schema, schema: Schema) -> Schema:
    return whole["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _values(whole: Schema, schema: Schema) -> str:
    """Return the values that a part of a JSON schema allows, in words."""
    schema = _definition(whole, schema)
    if "anyOf" in schema:
        return ", or ".join(_values(whole, each) for each in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    if schema["type"] == "array":
        return f"list of: {_values(whole, schema['items'])}"
    if schema["type"] == "object":
        return f"map with {', '.join(schema['properties'])}"
    if schema["type"] == "string":
        return "path" if schema.get("format") == "path" else "text"
    return _TYPES[schema["type"]] + _bounds(schema)


def _bounds(schema: Schema) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return "".join(f" {word} {schema[key]:.15g}" for key, word in words.items() if key in schema)


def _typed(value: object) -> str:
    """Return a default as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(str, cast('Sequence[object]', value)))}]" if isinstance(value, tuple) else str(value)
