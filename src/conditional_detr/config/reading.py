"""Read settings from presets, YAML files and ``key=value`` overrides, with a clear message for every mistake."""

import re
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from conditional_detr.config.core_yaml import MOST_BYTES, YAMLError, read_yaml
from conditional_detr.config.settings import VERSION, Settings
from conditional_detr.errors import SettingsError, did_you_mean, newer_version

Tree = dict[str, Any]  # section -> field -> value
LENGTHS = ("epochs", "steps", "minutes")  # settings of "train" that give the length of a run, each in its unit

# --- migration of older files ---

# Old key -> new key, and an explanation for the message.
RENAMED = {"train.drop_epoch": ("train.drop_at", "a fraction of the run: train.drop_at=0.8")}


def _drop_epoch_to_part(tree: Tree) -> None:
    """Migrate version 0 to 1: replace the epoch of the learning-rate drop by a fraction of the run."""
    train = tree.get("train")
    if not isinstance(train, dict) or "drop_at" in train:
        return
    section = cast(Tree, train)
    epoch, epochs = section.get("drop_epoch"), section.get("epochs", Settings().train.epochs)
    if type(epoch) is int and type(epochs) is int and epoch > 0 and epochs > 0:
        del section["drop_epoch"]
        section["drop_at"] = min(epoch / epochs, 1.0)


# Entry i migrates version i to version i + 1. Files without a version have version 0 (conditional-detr 0.1.0).
MIGRATIONS: tuple[Callable[[Tree], None], ...] = (_drop_epoch_to_part,)
assert len(MIGRATIONS) == VERSION


def _migrated(tree: Tree, name: str) -> Tree:
    """Return the tree migrated to the current version, without its ``version`` key.

    Raises ``SettingsError`` for an invalid version and for one newer than ``VERSION``.
    """
    tree = {key: dict(cast(Tree, value)) if isinstance(value, dict) else value for key, value in tree.items()}
    version = tree.pop("version", 0)
    if type(version) is not int or version < 0:
        raise SettingsError(f"{name}: version: must be a whole number, got {_shown(version)}; leave it out")
    if version > VERSION:
        raise SettingsError(newer_version(name, "config", version, VERSION))
    for migrate in MIGRATIONS[version:]:
        migrate(tree)
    return tree


# --- settings that may change within a run ---

CHANGEABLE = (
    "data.root",
    "data.layout",
    "data.strict",
    "data.hub",
    "data.train_annotations",
    "data.train_images",
    "data.val_annotations",
    "data.val_images",
    "data.workers",
    "data.on_error",
    "train.epochs",
    "train.steps",
    "train.minutes",
    "train.max_steps",
    "train.patience",
    "train.lr",
    "train.lr_backbone",
    "train.weight_decay",
    "train.clip_norm",
    "train.gradient_checkpointing",
    "train.log",
    "train.log_every",
    "train.save_every",
    "evaluation.every",
    "evaluation.batch_size",
    "evaluation.max_dets",
    "evaluation.report",
)


# Where a run is and how it is started; no part of what it computes.
_PLACE = ("train.output", "train.name", "train.resume")


def differences(before: Settings, after: Settings) -> dict[str, str]:
    """Return the keys whose values differ, with both values as text: ``8 -> 4``. Name and place of the run do not count."""
    old, new = (
        {f"{section}.{key}": value for section, fields in each for key, value in fields}
        for each in (
            [(name, part) for name, part in settings.resolved() if name != "preset"] for settings in (before, after)
        )
    )
    return {key: f"{old[key]} -> {new[key]}" for key in new if key not in _PLACE and old[key] != new[key]}


def fixed(changes: Mapping[str, str]) -> dict[str, str]:
    """Return those of the changes that can't happen within a run."""
    return {key: change for key, change in changes.items() if key not in CHANGEABLE}


def changed_within_run(settings: Settings, overrides: Sequence[str], run: Path) -> Settings:
    """Return the settings of ``run`` changed by ``key=value`` overrides.

    Raises ``SettingsError`` for an invalid override, and for one that changes a key that is not in ``CHANGEABLE``.
    """
    changed = settings_from(settings.model_dump(), overrides, str(run))
    for override in overrides:
        key, section, field, _ = _parts(override)
        before, after = (getattr(getattr(each, section), field) for each in (settings, changed))
        if before != after and key not in CHANGEABLE:
            raise SettingsError(
                f"{key} can't change within a run; start a new run: cdetr train {run / 'config.yaml'} {override} "
                f"(model.init_from={run} keeps the weights that fit)"
            )
    return changed


# --- reading ---


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    files = resources.files("conditional_detr.config").joinpath("presets").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def load_settings(preset_or_file: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of a preset or YAML file, changed by ``key=value`` overrides.

    preset_or_file: name of a preset, or path of a .yaml file. overrides: such as ``["train.epochs=12"]``, with YAML values.
    Files of older versions are migrated. Raises ``SettingsError`` for an unknown preset or key, an unreadable file, and an
    invalid value.
    """
    name = str(preset_or_file)
    if Path(preset_or_file).suffix in (".yaml", ".yml"):
        tree = _migrated(_tree(_text(Path(preset_or_file)), name), name)
    elif name in preset_names():
        preset = resources.files("conditional_detr.config").joinpath(f"presets/{name}.yaml")
        tree = {**_tree(preset.read_text(encoding="utf-8"), name), "preset": name}
    else:
        raise SettingsError(
            f"{_shown(name)} is neither a preset nor a .yaml file{did_you_mean(name, preset_names())}; "
            f"presets: {', '.join(preset_names())}"
        )
    return settings_from(tree, overrides, name)


def _text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading from a pipe could block forever
            raise SettingsError(f"{path} is not a file; name a preset or an existing file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise SettingsError(f"{path} is longer than {MOST_BYTES} bytes, too long for settings; name another file")
        return content.decode("utf-8-sig")
    except SettingsError:
        raise
    except OSError as error:
        raise SettingsError(f"{path} can't be read ({error.strerror}); name a preset or an existing file") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not text in UTF-8; save it as UTF-8") from error
    except ValueError as error:  # a name that is invalid for any file
        raise SettingsError(
            f"{_shown(str(path))} can't be read ({error}); name a preset or an existing file"
        ) from error


def _tree(text: str, name: str) -> Tree:
    try:
        tree = read_yaml(text)
    except YAMLError as error:
        raise SettingsError(f"{name} is not valid YAML: {error}") from error
    if tree is None:  # an empty file
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{name} must hold sections with keys (model: {{queries: 100}}), got {_shown(tree)}")
    return cast(Tree, tree)


def settings_from(values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "settings") -> Settings:
    """Return settings made of nested values, changed by ``key=value`` overrides.

    source: name of the values in messages. Raises ``SettingsError`` for an unknown key and for an invalid value.
    """
    tree: Tree = {
        key: dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None or key not in _sections()  # an empty section is the same as none
    }
    for override in overrides:
        key, section, field, text = _parts(override)
        try:
            value: Any = text if _is_text(key) and text != "null" else read_yaml(text)
        except YAMLError as error:
            raise SettingsError(f"{key}: {_shown(text)} is not a YAML value: {error}") from error
        part: Any = tree.setdefault(section, {})
        if not isinstance(part, dict):
            raise SettingsError(f"unknown key {_shown(key)}{did_you_mean(key, setting_keys())}")
        cast(Tree, part)[field] = value
    _replace_length(tree, overrides)
    try:
        # Strict: text is not converted to a number, nor true to 1.
        return Settings.model_validate({key: _typed(value, key, source) for key, value in tree.items()}, strict=True)
    except ValidationError as error:
        raise SettingsError(_sentence(error, source)) from error


def _replace_length(tree: Tree, overrides: Sequence[str]) -> None:
    """Let an override of the length of the run replace the length that a preset or file gives in another unit."""
    section: Any = tree.get("train")
    if not isinstance(section, dict):
        return
    train, overridden = cast(Tree, section), {_parts(override)[0] for override in overrides}
    given = [unit for unit in LENGTHS if f"train.{unit}" in overridden and train[unit] != 0]
    if len(given) > 1:
        both = " and ".join(f"train.{unit}={_shown(train[unit])}" for unit in given[:2])
        raise SettingsError(f"{both} both give the length of the run; leave out one of them")
    for unit in LENGTHS if given else ():
        if unit not in given and unit != "epochs":  # which is not used where another unit is given
            train.pop(unit, None)


def _parts(override: str) -> tuple[str, str, str, str]:
    """Split an override into key, section, field and value."""
    key, equals, text = override.partition("=")
    if not equals:
        raise SettingsError(f"{_shown(override)} is not of the form key=value, such as train.epochs=12")
    if len(text) > MOST_BYTES:
        raise SettingsError(f"{_shown(key)}: the value has {len(text)} characters, too many for a setting; shorten it")
    section, _, field = key.partition(".")
    if not field:
        raise SettingsError(f"unknown key {_shown(key)}{did_you_mean(key, setting_keys())}")
    return key, section, field, text


def _typed(value: object, key: str, source: str) -> object:
    """Convert a value for ``Settings``: lists to tuples, and text of path settings to paths with ``~`` expanded."""
    if isinstance(value, Mapping):
        values = cast(Mapping[str, object], value)
        return {name: _typed(each, f"{key}.{name}", source) for name, each in values.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_typed(each, key, source) for each in cast(Sequence[object], value))
    if not isinstance(value, str):
        return value
    if re.search("[\0\ud800-\udfff]", value):
        raise SettingsError(f"{source}: {key}: {_shown(value)} has characters that no name can have")
    described = setting_fields().get(key)
    is_path = described is not None and str(described.annotation) in _PATH
    if not value and (is_path or key == "model.init_from"):  # such as data.root=$DATA where DATA is not set
        raise SettingsError(f"{source}: {key} is empty; write a path, or leave it out")
    try:
        # model.init_from may be a path too.
        expanded = Path(value).expanduser() if is_path or (key == "model.init_from" and value[:1] == "~") else value
    except RuntimeError as error:
        user = Path(value).parts[0]
        user = user if len(user) <= 80 else _shown(user)
        raise SettingsError(f"{source}: {key}: {user} is no home directory here; write the whole path") from error
    return expanded if is_path else str(expanded)


# --- known keys ---


@cache
def setting_fields() -> Mapping[str, FieldInfo]:
    """Return every dotted key with its type, default and description."""
    return {
        f"{section}.{key}": described
        for section, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key, described in field.annotation.model_fields.items()
    }


def setting_keys() -> list[str]:
    """Return every dotted key."""
    return list(setting_fields())


def _sections() -> set[str]:
    return {key.partition(".")[0] for key in setting_keys()}


_PATH = {str(kind) for kind in (Path, Path | None)}
_TEXT = {str(kind) for kind in (str, str | None)} | _PATH


def _is_text(key: str) -> bool:
    """Tell whether a setting is a name or path, whose text is not parsed as YAML."""
    described = setting_fields().get(key)
    return described is not None and str(described.annotation) in _TEXT


# --- messages ---


def _sentence(error: ValidationError, source: str) -> str:
    first, *others = error.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"][:2])
    alternatives = [other for other in others if other["loc"][:2] == first["loc"][:2]]
    if first["type"] == "extra_forbidden":
        if key in RENAMED:
            new, hint = RENAMED[key]
            return f"{source}: {key} is now {new}, {hint}"
        known = setting_keys() if "." in key else list(Settings.model_fields)
        return f"{source}: unknown key {_shown(key)}{did_you_mean(key, known)}"
    if first["type"] == "value_error":
        return ": ".join(part for part in (source, key, first["msg"].removeprefix("Value error, ")) if part)
    # A field of several types has one error per type; a list may have one per item.
    wanted = list(dict.fromkeys(_wanted(each) for each in (first, *alternatives)))
    return f"{source}: {key}: {' or '.join(wanted[:8])}, got {_shown(first['input'])}"


def _wanted(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    inner = ".".join(
        str(part) for part in error["loc"][2:] if isinstance(part, str) and part.isidentifier() and part.islower()
    )
    return f"{inner[:60] + ': ' if inner else ''}{message[0].lower()}{message[1:]}"


def _shown(value: object) -> str:
    """Return ``repr(value)``, shortened to fit into a sentence."""
    try:
        text = repr(value)
    except ValueError:  # Python converts no whole number of thousands of digits
        return "a number of very many digits"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
