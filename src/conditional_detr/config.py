"""Typed settings of a run: what a preset or a YAML file may say, with defaults as published.

A file gives nested keys (``model: {queries: 100}``), the command line dotted ones (``model.queries=100``). Settings
are frozen; a wrong key or value is refused with ``SettingsError``.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from conditional_detr.errors import SettingsError
from conditional_detr.record import Architecture, Frozen, PositiveInt


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans: a setting may be called no, and a run on."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


Ablation = Literal["query_scale", "reference_points", "spatial_projection"]


class ModelSettings(Architecture):
    """The network, and how it starts."""

    backbone_weights: Path | None = None
    """ImageNet weights: a torchvision .pth or .safetensors file; random without"""
    init_from: str | None = None
    """fine-tuning: a run, checkpoint folder, .pth file or hub id to start from; fitting class rows and queries are kept"""
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    """auto: frozen with weights to start from (published), trained without"""
    frozen_stages: Literal["auto"] | Annotated[int, Field(ge=-1, le=4)] = "auto"
    """stages that do not train: -1 none, 0 the stem, 1 also stage one; auto: 1 with weights (published), or -1"""
    class_prior: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """prior probability of the class head at initialization (focal loss)"""
    ablate: tuple[Ablation, ...] = ()
    """parts of the conditional decoder that are held fixed in training, to see what they are worth: docs/convergence.md"""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.backbone_weights is not None and self.init_from is not None:
            raise ValueError("init_from brings its own backbone: leave out backbone_weights")
        if self.decoder == "detr" and self.ablate:
            raise ValueError(f"ablate={list(self.ablate)} names parts that only decoder=conditional has")
        return self

    def architecture(self) -> Architecture:
        """Return what shapes the network, apart from how it starts."""
        return Architecture.model_validate({key: getattr(self, key) for key in Architecture.model_fields})

    def resolved(self) -> "ModelSettings":
        """With every "auto" replaced by what it means."""
        pretrained = self.backbone_weights is not None or self.init_from is not None
        changes: dict[str, Any] = {}
        if self.batch_norm == "auto":
            changes["batch_norm"] = "frozen" if pretrained else "trained"
        if self.frozen_stages == "auto":
            changes["frozen_stages"] = 1 if pretrained else -1
        return self.model_copy(update=changes)


class LossSettings(Frozen):
    """Matching costs and loss weights, as published; "auto" is 2 with sigmoid classification, 1 with softmax."""

    class_cost: NonNegative | Literal["auto"] = "auto"
    """matching cost of the class score"""
    l1_cost: NonNegative = 5.0
    """matching cost of the distance of (cx, cy, w, h)"""
    giou_cost: NonNegative = 2.0
    """matching cost of the generalised IoU"""
    class_weight: NonNegative | Literal["auto"] = "auto"
    """weight of the class loss: focal loss with sigmoid classification, cross entropy with softmax"""
    l1_weight: NonNegative = 5.0
    """weight of the L1 loss of boxes"""
    giou_weight: NonNegative = 2.0
    """weight of the GIoU loss of boxes"""
    focal_alpha: Fraction = 0.25
    """weight of the positive class in the focal loss"""
    focal_gamma: NonNegative = 2.0
    """how much easy examples are discounted"""
    no_object_weight: Annotated[float, Field(gt=0)] = 0.1
    """weight of queries without object in the cross entropy"""


class DataSettings(Frozen):
    """Where the images are and how training and evaluation see them. Sizes are in pixels."""

    root: Path | None = None
    """a COCO folder (annotations/instances_train2017.json, train2017/) or Roboflow's COCO export"""
    train_annotations: Path | None = None
    """annotation file, where it is not found under root"""
    train_images: Path | None = None
    """image folder, where it is not found under root"""
    val_annotations: Path | None = None
    """annotation file for evaluation, where it is not found under root"""
    val_images: Path | None = None
    """image folder for evaluation, where it is not found under root"""
    flip: Fraction = 0.5
    """probability of a horizontal flip"""
    short_sides: tuple[PositiveInt, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """training: the shorter side becomes one of these"""
    max_size: PositiveInt = 1333
    """training: limit of the longer side; rounding can exceed it by one pixel, as published"""
    crop: Fraction = 0.5
    """probability of a random crop before the resize"""
    crop_short_sides: tuple[PositiveInt, ...] = (400, 500, 600)
    """before a crop the shorter side becomes one of these"""
    crop_min: PositiveInt = 384
    """least side of the crop"""
    crop_max: PositiveInt = 600
    """greatest side of the crop"""
    eval_short_side: PositiveInt = 800
    """evaluation and prediction: the shorter side becomes this"""
    eval_max_size: PositiveInt = 1333
    """evaluation and prediction: limit of the longer side"""
    group_by_aspect_ratio: bool = False
    """batches of only upright or only lying images: less padding"""
    workers: Annotated[int, Field(ge=0)] = 2
    """loading processes per training process"""

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.crop_min > self.crop_max:
            raise ValueError(f"crop_min {self.crop_min} is larger than crop_max {self.crop_max}")
        if not self.short_sides or (self.crop > 0 and not self.crop_short_sides):
            raise ValueError("short_sides and crop_short_sides need at least one size")
        return self


class TrainSettings(Frozen):
    """Optimisation and bookkeeping."""

    epochs: PositiveInt = 50
    """times that every image is seen"""
    max_steps: Annotated[int, Field(ge=0)] = 0
    """stop after so many optimizer steps; 0: after the epochs"""
    batch_size: PositiveInt = 2
    """images per process and forward pass"""
    accumulate: PositiveInt = 1
    """forward passes per optimizer step; the gradients are those of one large batch"""
    base_batch_size: PositiveInt = 16
    """total batch that lr belongs to"""
    scale_lr: bool = False
    """multiply the learning rates by total batch / base_batch_size"""
    lr: NonNegative = 1e-4
    """learning rate of everything but the backbone"""
    lr_backbone: NonNegative = 1e-5
    """learning rate of the backbone"""
    weight_decay: NonNegative = 1e-4
    """on every parameter, as published"""
    clip_norm: NonNegative = 0.1
    """gradients are scaled down to this norm, all parameters together; 0: never"""
    schedule: Literal["step", "cosine"] = "step"
    """how learning rates fall after the warm-up"""
    drop_epoch: PositiveInt = 40
    """step: learning rates are divided by ten after so many epochs"""
    cosine_end: Fraction = 0.01
    """cosine: learning rate at the end, as a part of that at the start"""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """linear warm-up from 0"""
    query_groups: PositiveInt = 1
    """sets of queries that learn side by side, each matched with all objects (Group DETR); only the first is kept"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """exponential moving average of the weights, evaluated and saved in their place; 0: none"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, more time"""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """arithmetic of the forward pass; boxes and scores stay in float32"""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """of initial weights, dropout, and order and augmentation of the data"""
    output: Path = Path("runs")
    """run folders are made in here"""
    name: str = ""
    """of the run folder; the preset's name and a number without"""
    log_every: PositiveInt = 10
    """optimizer steps between lines of metrics.jsonl"""
    save_every: PositiveInt = 1000
    """optimizer steps between states for --resume; one is also saved after every epoch"""


class EvaluationSettings(Frozen):
    """COCO AP. No score threshold: it would change AP."""

    every: PositiveInt = 1
    """epochs between evaluations; the last epoch is always evaluated"""
    batch_size: PositiveInt = 1
    """images per process; 1 as published: more images mean padding, which changes results slightly"""
    max_dets: PositiveInt | None = None
    """detections per image that count; without: 100, or the most objects in an image where that is more"""


class Settings(Frozen):
    """Everything that makes a run."""

    preset: str = ""
    """name of the preset that this began with"""
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.train.query_groups > 1 and self.model.decoder == "detr":
            raise ValueError("train.query_groups needs model.decoder=conditional")
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def preset_names() -> list[str]:
    """Names that ``load_settings`` knows."""
    files = resources.files("conditional_detr").joinpath("presets").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def load_settings(preset_or_file: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Settings of a preset's name or a YAML file, changed by ``key=value`` overrides.

    Raises ``SettingsError`` for an unknown preset, file, key or value.
    """
    name = str(preset_or_file)
    path = Path(preset_or_file)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(
                f"{path} can't be read ({error.strerror}); name a preset or an existing file"
            ) from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path} is not text in UTF-8; save it as such") from error
    elif name in preset_names():
        text = resources.files("conditional_detr").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")
    else:
        raise SettingsError(
            f"{name!r} is neither a preset nor a .yaml file{_did_you_mean(name, preset_names())}; "
            f"presets: {', '.join(preset_names())}"
        )
    try:
        values: Any = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SettingsError(
            f"{name} must hold sections with keys (model: {{queries: 100}}), not {type(values).__name__}"
        )
    tree = cast(dict[str, Any], values)
    if name in preset_names():
        tree["preset"] = name
    return settings_from(tree, overrides, name)


def settings_from(values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "settings") -> Settings:
    """Settings of nested values, changed by ``key=value`` overrides. Raises ``SettingsError``."""
    tree: dict[str, Any] = {
        key: dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise SettingsError(f"{override!r} is not of the form key=value, such as train.epochs=12")
        section, _, field = key.partition(".")
        if not field:
            raise SettingsError(f"unknown key {key!r}{_did_you_mean(key, setting_keys())}")
        try:
            value: Any = text if _is_text(section, field) and text != "null" else yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise SettingsError(f"{key}: {text!r} is not a YAML value") from error
        part: Any = tree.setdefault(section, {})
        if part is None:  # a section that the file names and leaves empty
            part = tree[section] = {}
        if not isinstance(part, dict):
            raise SettingsError(f"unknown key {key!r}{_did_you_mean(key, setting_keys())}")
        cast(dict[str, Any], part)[field] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_sentence(error, source)) from error


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
