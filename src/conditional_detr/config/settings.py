"""Typed settings of a run. The defaults are the published values.

Files give nested keys (``model: {queries: 100}``), overrides dotted ones (``model.queries=100``); ``reading.py`` reads
both. Settings are frozen.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from conditional_detr.architecture import MOST_QUERIES, Architecture, Frozen, PositiveInt, at_most
from conditional_detr.config.core_yaml import write_yaml
from conditional_detr.input_size import InputSize

VERSION = 1  # version of files written by ``to_yaml``; an incompatible change needs a migration in ``reading.py``

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0), at_most(10**9, "training in float32 overflows")]
_LONGEST = at_most(10**9, "no run is that long")
Steps = Annotated[int, Field(ge=0), _LONGEST]
Batch = Annotated[PositiveInt, at_most(65_536, "all images of a batch are in memory at once")]


def _folder_name(name: str) -> str:
    """Refuse a name that is no single folder, because a run would be written outside of its parent folder."""
    if name in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise ValueError(
            f"must be the name of one folder, got {name[:60]!r}; train.output sets the folder that it is in"
        )
    if len(name.encode()) > 200:
        raise ValueError(f"must be at most 200 bytes long, got {len(name.encode())}; give a shorter name")
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]


_Section = TypeVar("_Section", bound=Frozen)


def _without_auto(section: _Section, **meanings: object) -> _Section:
    """Return the section with "auto" in these fields replaced by the given values."""
    return section.model_copy(update={key: value for key, value in meanings.items() if getattr(section, key) == "auto"})


Ablation = Literal["query_scale", "reference_points", "spatial_projection"]


class ModelSettings(Architecture):
    """Architecture of the network, and its initialization."""

    backbone_weights: Path | None = None
    """ImageNet weights of the backbone: a .pth or .safetensors file, or imagenet for the published one; null for random weights"""
    init_from: str | None = None
    """fine-tuning: run, checkpoint folder, .pth file or hub id of the initial weights; class rows and queries are kept where they fit"""
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    """batch norm of the backbone; auto: frozen with pretrained weights (published), otherwise trained"""
    frozen_stages: Literal["auto"] | Annotated[int, Field(ge=-1, le=4)] = "auto"
    """frozen stages of the backbone: -1 none, 0 the stem, n the stem and stages 1 to n; auto: 1 with pretrained weights (published), otherwise -1"""
    class_prior: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """prior probability of the class head at initialization (focal loss)"""
    ablate: tuple[Ablation, ...] = ()
    """ablation study: parts of the conditional decoder that are fixed and do not train (docs/convergence.md)"""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.backbone_weights is not None and self.init_from is not None:
            raise ValueError("init_from includes the weights of the backbone; leave out backbone_weights")
        if self.decoder == "detr" and self.ablate:
            raise ValueError(f"ablate={list(self.ablate)} names parts that only decoder=conditional has")
        return self

    def architecture(self) -> Architecture:
        """Return the architecture, without the settings of its initialization."""
        return Architecture.model_validate({key: getattr(self, key) for key in Architecture.model_fields})

    def resolved(self) -> "ModelSettings":
        """Return these settings with every "auto" replaced by its value."""
        pretrained = self.backbone_weights is not None or self.init_from is not None
        return _without_auto(
            self, batch_norm="frozen" if pretrained else "trained", frozen_stages=1 if pretrained else -1
        )


class LossSettings(Frozen):
    """Matching costs and loss weights, by default as published. "auto" is explained with its settings."""

    class_cost: NonNegative | Literal["auto"] = "auto"
    """weight of the class score in the matching cost; auto: 2 with sigmoid classification, 1 with softmax"""
    l1_cost: NonNegative = 5.0
    """weight of the L1 distance of boxes (cx, cy, w, h) in the matching cost"""
    giou_cost: NonNegative = 2.0
    """weight of the generalized IoU in the matching cost"""
    class_loss: Literal["focal", "mal"] = "focal"
    """class loss of sigmoid classification; focal: as published; mal: matchability-aware loss (DEIM, CVPR 2025), whose scores learn how well the box fits"""
    class_weight: NonNegative | Literal["auto"] = "auto"
    """weight of the class loss; auto: 2 with the focal loss, 1 with mal and with softmax (cross entropy)"""
    l1_weight: NonNegative = 5.0
    """weight of the L1 loss of boxes"""
    giou_weight: NonNegative = 2.0
    """weight of the GIoU loss of boxes"""
    focal_alpha: Fraction = 0.25
    """alpha of the focal loss: weight of the positive class"""
    focal_gamma: NonNegative = 2.0
    """gamma of the focal loss: a larger value reduces the weight of easy examples"""
    mal_gamma: NonNegative = 1.5
    """gamma of mal: power of the IoU that a score is to reach, and of the score that weights negatives"""
    no_object_weight: Annotated[NonNegative, Field(gt=0)] = 0.1
    """weight of queries without an object in the cross entropy (softmax only)"""

    def resolved(self, softmax: bool) -> "LossSettings":
        """Return these settings with every "auto" replaced by its value. softmax: whether classification is softmax."""
        weight = 1.0 if softmax or self.class_loss == "mal" else 2.0
        return _without_auto(self, class_cost=1.0 if softmax else 2.0, class_weight=weight)


class DataSettings(Frozen):
    """Location of the data, and preprocessing for training and evaluation. Sizes are in pixels."""

    root: Path | None = None
    """folder of a data set in COCO, Pascal VOC, YOLO or Hugging Face layout, or a YOLO data.yaml (docs/data.md)"""
    layout: Literal["auto", "coco", "voc", "yolo", "huggingface"] = "auto"
    """layout of root; auto: recognized by its files"""
    hub: str | None = None
    """id of a data set on the Hugging Face hub instead of root, in Parquet or imagefolder form: owner/name, or owner/name@revision"""
    train_annotations: Path | None = None
    """COCO annotation file for training; null to look under root"""
    train_images: Path | None = None
    """image folder for training; null to look under root"""
    val_annotations: Path | None = None
    """COCO annotation file for evaluation; null to look under root"""
    val_images: Path | None = None
    """image folder for evaluation; null to look under root"""
    val: Literal["auto", "none"] = "auto"
    """auto: the validation data under root, or val_annotations; none: train without evaluation and keep the newest model"""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """fraction of the training images that is held out for evaluation instead of a validation split; copies of an image stay together"""
    categories: tuple[str, ...] = ()
    """names of the categories in the order of the logits, for layouts that do not list them (Pascal VOC); empty for alphabetical order"""
    voc_one_based: bool = False
    """Pascal VOC: corners are counted from 1, as in the original data set; 1 is subtracted from xmin and ymin"""
    voc_difficult: Literal["ignore", "keep"] = "ignore"
    """Pascal VOC: objects marked as difficult; ignore: like crowds, not trained and not counted in AP; keep: like all others"""
    exif: Literal["auto", "upright", "raw"] = "auto"
    """frame of boxes in images with an EXIF orientation; upright: as viewers show the image; raw: as its pixels are stored; auto: upright, with a warning where sizes do not confirm it"""
    on_error: Literal["stop", "skip"] = "stop"
    """images that are missing, damaged or of another size than the annotations say; stop: save a state and end with a message; skip: leave them out, and tell which"""
    strict: bool = False
    """refuse data with problems that are otherwise warnings"""
    flip: Fraction = 0.5
    """training: probability of a horizontal flip"""
    short_sides: tuple[PositiveInt, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """training: lengths of the shorter side; one is drawn for each image"""
    max_size: PositiveInt = 1333
    """training: maximum length of the longer side; rounding can exceed it by one pixel, as published"""
    crop: Fraction = 0.5
    """training: probability of a random crop before the resize"""
    crop_short_sides: tuple[PositiveInt, ...] = (400, 500, 600)
    """training: lengths of the shorter side before a crop; one is drawn for each image"""
    crop_min: PositiveInt = 384
    """training: minimum side of a crop"""
    crop_max: PositiveInt = 600
    """training: maximum side of a crop"""
    scale_jitter: Fraction = 0.0
    """training: probability of scale jitter in place of the crop: the image is enlarged and cut, or shrunk and padded"""
    scale_min: Annotated[float, Field(gt=0)] = 0.5
    """scale jitter: minimum factor on the size of objects"""
    scale_max: Annotated[float, Field(gt=0)] = 2.0
    """scale jitter: maximum factor on the size of objects"""
    mosaic: Fraction = 0.0
    """training: probability that an image becomes a mosaic of itself and three random others"""
    mosaic_until: Fraction = 0.8
    """mosaic: fraction of the run with mosaics; its last epochs have none"""
    min_visible: Fraction = 0.25
    """scale jitter and mosaic: minimum fraction of a box inside a cut; with less, an object is dropped unless its center is inside"""
    vertical_flip: Fraction = 0.0
    """training: probability of a vertical flip, for images without an up"""
    quarter_turns: Fraction = 0.0
    """training: probability of a turn by 90, 180 or 270 degrees, for images without an up; 0.75 makes all four directions equally frequent"""
    color_jitter: Fraction = 0.0
    """training: probability of changed colors, with the strengths brightness, contrast, saturation and hue"""
    brightness: Fraction = 0.125
    """color jitter: strength s of brightness, whose factor is drawn from 1 - s to 1 + s"""
    contrast: Fraction = 0.5
    """color jitter: strength s of contrast, whose factor is drawn from 1 - s to 1 + s"""
    saturation: Fraction = 0.5
    """color jitter: strength s of saturation, whose factor is drawn from 1 - s to 1 + s"""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """color jitter: strength s of hue, which is shifted by -s to s of the color circle; 0.5 is any hue"""
    eval_short_side: PositiveInt = 800
    """evaluation and prediction: length of the shorter side"""
    eval_max_size: PositiveInt = 1333
    """evaluation and prediction: maximum length of the longer side"""
    group_by_aspect_ratio: bool = False
    """training: batch portrait and landscape images separately, for less padding"""
    workers: Annotated[int, Field(ge=0), at_most(1024, "each is a process")] = 2
    """data-loading processes per training process; 0 to load in the training process itself"""

    def files_of(self, split: Literal["train", "val", "test"]) -> tuple[Path | None, Path | None]:
        """Return the given annotation file and image folder of a split. A test split is looked for under ``root`` alone."""
        if split == "test":
            return None, None
        if split == "val":
            return self.val_annotations, self.val_images
        return self.train_annotations, self.train_images

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.hub is not None and self.root is not None:
            raise ValueError("hub and root both name a data set; leave out one of them")
        if self.hub is not None and not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(@\w[\w./-]*)?", self.hub):
            raise ValueError(f"hub needs the id of a data set such as cppe-5 or owner/name, got {self.hub!r:.60}")
        if self.crop_min > self.crop_max:
            raise ValueError(f"crop_min {self.crop_min} is larger than crop_max {self.crop_max}")
        if not self.short_sides or (self.crop > 0 and not self.crop_short_sides):
            raise ValueError("short_sides and crop_short_sides need at least one size")
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min:g} is larger than scale_max {self.scale_max:g}")
        if self.mosaic > 0 and self.mosaic_until == 0:
            raise ValueError(
                f"mosaic={self.mosaic:g} has no effect with mosaic_until=0; set mosaic=0, or mosaic_until=0.8"
            )
        sizes = {
            "short_sides": [(side, self.max_size) for side in self.short_sides],
            "crop_short_sides": [(side, side) for side in self.crop_short_sides],
            "eval_short_side": [(self.eval_short_side, self.eval_max_size)],
        }
        for key, each in sizes.items():
            try:
                list(map(InputSize, each))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        return self


class TrainSettings(Frozen):
    """Optimization and bookkeeping."""

    epochs: Annotated[PositiveInt, _LONGEST] = 50
    """number of passes over the training images"""
    steps: Steps = 0
    """length of the run and its schedule in optimizer steps, whatever the number of images, instead of epochs; 0 to use epochs"""
    minutes: Annotated[float, Field(ge=0), at_most(10**7, "no run is that long")] = 0.0
    """time of the run from its start to its end, evaluations included, which decides the number of steps and with it the schedule; 0 to use epochs or steps"""
    max_steps: Steps = 0
    """stop after so many optimizer steps, in the middle of the schedule; 0 for no limit"""
    patience: Steps = 0
    """end the run when AP has not improved for so many evaluations; 0 to train to the end"""
    batch_size: Batch | Literal["auto"] = 2
    """images per process and forward pass; auto: the largest power of two, up to 64, that fits into the memory of a GPU; 2 on a CPU"""
    accumulate: Annotated[PositiveInt, at_most(65_536, "a step would never end")] = 1
    """gradient accumulation: forward passes per optimizer step; gradients equal those of one large batch"""
    base_batch_size: PositiveInt = 16
    """total batch size that lr and lr_backbone are chosen for"""
    scale_lr: bool = False
    """multiply the learning rates by total batch size / base_batch_size"""
    lr: NonNegative = 1e-4
    """learning rate of everything but the backbone"""
    lr_backbone: NonNegative = 1e-5
    """learning rate of the backbone"""
    lr_class_head: NonNegative | None = None
    """learning rate of the class head, which fine-tuning for other categories starts anew; null for lr"""
    weight_decay: NonNegative = 1e-4
    """weight decay of AdamW on every parameter, as published"""
    clip_norm: NonNegative = 0.1
    """maximum gradient norm over all parameters; 0 for no clipping"""
    schedule: Literal["step", "cosine", "flat-cosine"] = "step"
    """learning-rate schedule after the warm-up; flat-cosine: constant until flat_until, then cosine"""
    drop_at: Fraction = 0.8
    """step schedule: fraction of the run after which the learning rates are divided by ten"""
    flat_until: Fraction = 0.5
    """flat-cosine schedule: fraction of the run with constant learning rates"""
    cosine_end: Fraction = 0.01
    """cosine schedules: final learning rate as a fraction of the initial one"""
    warmup_steps: Steps = 0
    """optimizer steps of linear warm-up from 0"""
    query_groups: Annotated[PositiveInt, at_most(1000, "each has queries of its own")] = 1
    """number of query groups in training, each matched with all objects (Group DETR); only the first is saved"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """decay of the exponential moving average of the weights, which is evaluated and saved instead; 0 for none"""
    ema_ramp: Steps = 0
    """moving average: the decay rises as ema_decay * (1 - exp(-step / ema_ramp)), so that short runs do not keep their first weights; 0 for a constant decay"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, more time"""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """precision of the forward pass; boxes and scores stay in float32"""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """random seed of initial weights, dropout, and order and augmentation of the data"""
    output: Path = Path("runs")
    """parent folder of run folders"""
    name: FolderName = ""
    """name of the run folder; if empty, the name of the preset, with a number where needed"""
    resume: Literal["never", "auto"] = "never"
    """a run of this name that has begun; never: refuse; auto: resume it, so that one command starts a run and goes on with it"""
    log: tuple[
        Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"], ...
    ] = ()
    """trackers that get metrics, settings, pictures and the model, through accelerate; TensorBoard files are written wherever it is installed"""
    log_every: PositiveInt = 10
    """optimizer steps between lines in metrics.jsonl"""
    save_every: PositiveInt = 1000
    """optimizer steps between saved states, from which a run resumes; a state is also saved after every epoch"""

    @model_validator(mode="after")
    def _ends(self) -> "TrainSettings":
        if self.batch_size != "auto" and self.batch_size * self.accumulate > 10**7:
            raise ValueError(
                f"batch_size={self.batch_size} times accumulate={self.accumulate} is above 10,000,000, and no step would end; "
                f"make one of them smaller"
            )
        if self.ema_ramp and not self.ema_decay:
            raise ValueError(
                f"ema_ramp={self.ema_ramp} has no effect without a moving average; set ema_decay=0.9997, or ema_ramp=0"
            )
        if self.minutes and self.steps:
            raise ValueError(
                f"minutes={self.minutes:g} and steps={self.steps} both give the length of the run; set one of them to 0"
            )
        if self.minutes and self.max_steps:
            raise ValueError(
                f"max_steps={self.max_steps} would end a run of minutes={self.minutes:g} before its time; set one of them to 0"
            )
        if self.resume == "auto" and not self.name:
            raise ValueError("resume=auto finds the run by its name; give train.name")
        return self


class EvaluationSettings(Frozen):
    """Evaluation with COCO AP. There is no score threshold, because it would change AP."""

    every: PositiveInt = 1
    """epochs between evaluations; the last epoch is always evaluated"""
    batch_size: Batch = 1
    """images per process and forward pass; 1 as published: padding in larger batches changes results slightly"""
    max_dets: Annotated[PositiveInt, at_most(1_000_000, "all detections of an image are in memory at once")] | None = (
        None
    )
    """maximum number of detections per image; null for 100, or for the largest number of objects in an image if that is greater"""
    report: bool = True
    """write a report on the best model into the run folder at the end of training (docs/report.md)"""


class Settings(Frozen):
    """All settings of a run."""

    preset: FolderName = ""
    """name of the preset that these settings are based on"""
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.train.query_groups > 1 and self.model.decoder == "detr":
            raise ValueError("train.query_groups needs model.decoder=conditional")
        if self.loss.class_loss == "mal" and self.model.classification == "softmax":
            raise ValueError("loss.class_loss=mal needs scores without softmax; set model.classification=sigmoid")
        if self.train.patience and self.data.val == "none":
            raise ValueError(
                f"train.patience={self.train.patience} needs evaluations, and data.val=none has none; set train.patience=0"
            )
        if self.model.queries * self.train.query_groups > MOST_QUERIES:
            raise ValueError(
                f"model.queries={self.model.queries} times train.query_groups={self.train.query_groups} is above "
                f"{MOST_QUERIES:,}, more than fits into memory; make one of them smaller"
            )
        return self

    def resolved(self) -> "Settings":
        """Return these settings with every "auto" in every section replaced by its value."""
        softmax = self.model.classification == "softmax"
        return self.model_copy(update={"model": self.model.resolved(), "loss": self.loss.resolved(softmax)})

    def to_yaml(self) -> str:
        """Return the text of a settings file, which ``load_settings`` reads."""
        return write_yaml({"version": VERSION, **self.model_dump(mode="json")})
