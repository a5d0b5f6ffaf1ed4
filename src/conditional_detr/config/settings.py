"""Typed settings of a run: what a preset or a YAML file may say, with defaults as published.

A file gives nested keys (``model: {queries: 100}``), the command line dotted ones (``model.queries=100``):
``reading.py``. Settings are frozen.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from conditional_detr.config.core_yaml import write_yaml
from conditional_detr.record import Architecture, Frozen, PositiveInt

VERSION = 1  # of the file that ``to_yaml`` writes; a change that older files need gets a migration in ``reading.py``

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


_Section = TypeVar("_Section", bound=Frozen)


def _without_auto(section: _Section, **meanings: object) -> _Section:
    """The section with each of these fields set to its meaning where it is "auto"."""
    return section.model_copy(update={key: value for key, value in meanings.items() if getattr(section, key) == "auto"})


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
        return _without_auto(
            self, batch_norm="frozen" if pretrained else "trained", frozen_stages=1 if pretrained else -1
        )


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

    def resolved(self, softmax: bool) -> "LossSettings":
        """With every "auto" replaced by what it means for a model whose classes share a softmax, or do not."""
        published = 1.0 if softmax else 2.0
        return _without_auto(self, class_cost=published, class_weight=published)


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
    drop_at: Fraction = 0.8
    """step: part of the run after which learning rates are divided by ten"""
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

    def resolved(self) -> "Settings":
        """With every "auto" of every section replaced by what it means."""
        softmax = self.model.classification == "softmax"
        return self.model_copy(update={"model": self.model.resolved(), "loss": self.loss.resolved(softmax)})

    def to_yaml(self) -> str:
        """A file for ``load_settings``."""
        return write_yaml({"version": VERSION, **self.model_dump(mode="json")})
