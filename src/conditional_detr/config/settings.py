"""Typed settings of a run: what a preset or a YAML file may say, with defaults as published.

A file gives nested keys (``model: {queries: 100}``), the command line dotted ones (``model.queries=100``):
``reading.py``. Settings are frozen.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from conditional_detr.config.core_yaml import write_yaml

VERSION = 1  # of the file that ``to_yaml`` writes; a change that older files need gets a migration in ``reading.py``

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


_Section = TypeVar("_Section", bound=_Settings)


def _without_auto(section: _Section, **meanings: object) -> _Section:
    """The section with each of these fields set to its meaning where it is "auto"."""
    return section.model_copy(update={key: value for key, value in meanings.items() if getattr(section, key) == "auto"})


Ablation = Literal["query_scale", "reference_points", "spatial_projection"]


class BackboneShape(_Settings):
    """A ResNet of any size."""

    block: Literal["basic", "bottleneck"]
    """two 3x3 convolutions, or 1x1, 3x3, 1x1"""
    depths: tuple[PositiveInt, ...]
    """residual blocks per stage; every stage after the first halves the resolution"""
    widths: tuple[PositiveInt, ...]
    """output channels per stage"""
    stem_width: PositiveInt = 64
    """channels of the 7x7 stem"""

    @model_validator(mode="after")
    def _consistent(self) -> "BackboneShape":
        if len(self.depths) != len(self.widths) or not self.depths:
            raise ValueError(f"depths {self.depths} and widths {self.widths} must name the same stages, at least one")
        if self.block == "bottleneck" and any(width % 4 for width in self.widths):
            raise ValueError(f"widths of bottleneck stages must be multiples of 4, got {self.widths}")
        return self


RESNETS = {
    "resnet18": BackboneShape(block="basic", depths=(2, 2, 2, 2), widths=(64, 128, 256, 512)),
    "resnet34": BackboneShape(block="basic", depths=(3, 4, 6, 3), widths=(64, 128, 256, 512)),
    "resnet50": BackboneShape(block="bottleneck", depths=(3, 4, 6, 3), widths=(256, 512, 1024, 2048)),
    "resnet101": BackboneShape(block="bottleneck", depths=(3, 4, 23, 3), widths=(256, 512, 1024, 2048)),
}


class ModelSettings(_Settings):
    """The network. Defaults are the published R50 model."""

    decoder: Literal["conditional", "detr"] = "conditional"
    """the paper's, or plain DETR's, with which come softmax classification and 100 queries"""
    classification: Literal["sigmoid", "softmax"] = "sigmoid"
    """a score of its own for every class (focal loss), or classes and "no object" that compete (cross entropy)"""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] | BackboneShape = "resnet50"
    """a ResNet by name, or its shape"""
    dilation: bool = False
    """DC5: the last stage keeps its resolution (stride 16 instead of 32) and dilates"""
    backbone_weights: Path | None = None
    """ImageNet weights: a torchvision .pth or .safetensors file; random without"""
    init_from: str | None = None
    """fine-tuning: a run, checkpoint folder, .pth file or hub id to start from; fitting class rows and queries are kept"""
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    """auto: frozen with weights to start from (published), trained without"""
    frozen_stages: Literal["auto"] | Annotated[int, Field(ge=-1, le=4)] = "auto"
    """stages that do not train: -1 none, 0 the stem, 1 also stage one; auto: 1 with weights (published), or -1"""
    channels: PositiveInt = 256
    """width of the transformer; a multiple of 4 and of heads"""
    heads: PositiveInt = 8
    """attention heads"""
    feed_forward: PositiveInt = 2048
    """hidden width of the feed-forward networks"""
    encoder_layers: Annotated[int, Field(ge=0)] = 6
    """may be 0"""
    decoder_layers: PositiveInt = 6
    """each has auxiliary losses in training"""
    queries: PositiveInt = 300
    """object queries: at most so many objects are found in an image"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """in attention, feed-forward and residual connections"""
    position_temperature: Annotated[float, Field(gt=0)] = 10000.0
    """of all sine encodings"""
    norm_between_layers: bool = False
    """every decoder layer gets the normalised output of the one before: only for fine-tunes of transformers with auxiliary_loss"""
    class_prior: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """score that the untrained class head gives every class"""
    ablate: tuple[Ablation, ...] = ()
    """parts of the conditional decoder that are held fixed in training, to see what they are worth: docs/convergence.md"""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_detr(cls, values: Any) -> Any:
        if isinstance(values, dict) and cast(dict[str, Any], values).get("decoder") == "detr":
            return {"classification": "softmax", "queries": 100, **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.channels % 4 or self.channels % self.heads:
            raise ValueError(f"channels must be a multiple of 4 and of heads ({self.heads}), got {self.channels}")
        if self.backbone_weights is not None and self.init_from is not None:
            raise ValueError("init_from brings its own backbone: leave out backbone_weights")
        if self.decoder == "detr" and self.ablate:
            raise ValueError(f"ablate={list(self.ablate)} names parts that only decoder=conditional has")
        return self

    def backbone_shape(self) -> BackboneShape:
        return RESNETS[self.backbone] if isinstance(self.backbone, str) else self.backbone

    def resolved(self) -> "ModelSettings":
        """With every "auto" replaced by what it means."""
        pretrained = self.backbone_weights is not None or self.init_from is not None
        return _without_auto(
            self, batch_norm="frozen" if pretrained else "trained", frozen_stages=1 if pretrained else -1
        )


class LossSettings(_Settings):
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


class DataSettings(_Settings):
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


class TrainSettings(_Settings):
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


class EvaluationSettings(_Settings):
    """COCO AP. No score threshold: it would change AP."""

    every: PositiveInt = 1
    """epochs between evaluations; the last epoch is always evaluated"""
    batch_size: PositiveInt = 1
    """images per process; 1 as published: more images mean padding, which changes results slightly"""
    max_dets: PositiveInt | None = None
    """detections per image that count; without: 100, or the most objects in an image where that is more"""


class Settings(_Settings):
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
