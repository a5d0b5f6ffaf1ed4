"""The model record: architecture, categories and input size. Every checkpoint and export contains it. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from conditional_detr.errors import CheckpointError, newer_version

VERSION = 1  # of the record that ``to_dict`` writes; 0 means conditional-detr 0.1.0, which wrote no version

# --- architecture ---


def at_most(largest: int, reason: str) -> AfterValidator:
    """Return the check of a number that refuses values above ``largest``. reason: why, for the message.

    Such bounds are far above what anyone trains. They refuse a slip of the keyboard before it fills the memory.
    """

    def check(value: int | float) -> int | float:
        if value > largest:
            raise PydanticCustomError(
                "at_most", "must be at most {largest} ({reason})", {"largest": f"{largest:,}", "reason": reason}
            )
        return value

    return AfterValidator(check)


PositiveInt = Annotated[int, Field(gt=0)]
Width = Annotated[PositiveInt, at_most(65_536, "the number of weights grows with its square")]
_LAYERS = at_most(1000, "each has weights of its own")
Blocks = Annotated[PositiveInt, _LAYERS]
MOST_QUERIES = 100_000
MOST_PARAMETERS = 10**10  # 40 GB in float32


class Frozen(BaseModel):
    """Base class of settings: immutable, without unknown keys, fields described by their docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


# Backbone family -> names of its members. A family is one module, ``model/backbones/FAMILY.py``, and one
# entry here.
BACKBONES: dict[str, tuple[str, ...]] = {
    "resnet": ("resnet18", "resnet34", "resnet50", "resnet101"),
    "efficientnet": ("efficientnet-lite0", "efficientnet-lite0-stride16"),
    "huggingface": (),  # any, by its configuration
}


def backbone_names() -> list[str]:
    """Return the names of the backbones of all families."""
    return [name for names in BACKBONES.values() for name in names]


class BackboneShape(Frozen):
    """Shape of a ResNet of any size."""

    block: Literal["basic", "bottleneck"]
    """kind of residual block; basic: two 3x3 convolutions; bottleneck: 1x1, 3x3 and 1x1 convolutions"""
    depths: tuple[Blocks, ...]
    """number of residual blocks per stage; every stage after the first halves the resolution"""
    widths: tuple[Width, ...]
    """number of output channels per stage"""
    stem_width: Width = 64
    """number of channels of the 7x7 stem"""

    @model_validator(mode="after")
    def _consistent(self) -> "BackboneShape":
        if len(self.depths) != len(self.widths) or not self.depths:
            raise ValueError(f"depths {self.depths} and widths {self.widths} must have the same length, at least 1")
        if len(self.depths) > 10:
            raise ValueError(f"a backbone has at most 10 stages, got {len(self.depths)}: each halves the resolution")
        if self.block == "bottleneck" and any(width % 4 for width in self.widths):
            raise ValueError(f"widths of bottleneck stages must be multiples of 4, got {self.widths}")
        return self


_MOST_OF_A_BACKBONE = 65_536  # of any number in its configuration


class BackboneConfig(BaseModel):
    """Configuration of a backbone of transformers (``AutoBackbone``), such as ConvNeXt, Swin or DINOv2.

    Every key of that configuration is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    model_type: str
    """name of the kind, such as convnext"""

    @model_validator(mode="after")
    def _bounded(self) -> "BackboneConfig":
        for key, value in self.numbers():
            repeated = any(word in key for word in ("depth", "layers", "blocks"))
            most = 1000 if repeated else _MOST_OF_A_BACKBONE
            if abs(value) > most:
                raise ValueError(f"{key} must be at most {most:,}, got {value:,}")
        return self

    def numbers(self) -> list[tuple[str, int]]:
        """Return all whole numbers of the configuration with their keys, those in lists and tables too."""
        found: list[tuple[str, int]] = []
        rest: list[tuple[str, Any]] = list((self.model_extra or {}).items())
        while rest:
            key, value = rest.pop()
            if isinstance(value, dict):
                rest += cast("dict[str, Any]", value).items()
            elif isinstance(value, (list, tuple)):
                rest += [(key, each) for each in cast("list[Any]", value)]
            elif isinstance(value, int):
                found.append((key, value))
        return found


class Architecture(Frozen):
    """Settings that determine the network and what it computes. Defaults are those of the published R50 model."""

    decoder: Literal["conditional", "detr"] = "conditional"
    """conditional: decoder of Conditional DETR; detr: plain DETR, by default with softmax classification and 100 queries"""
    classification: Literal["sigmoid", "softmax"] = "sigmoid"
    """sigmoid: one score per class (focal loss); softmax: classes and "no object" compete (cross entropy)"""
    backbone: str | BackboneShape | BackboneConfig = "resnet50"
    """name of a backbone, the shape of a ResNet, or the configuration of a backbone of transformers"""
    dilation: bool = False
    """DC5: the last stage keeps its resolution (stride 16 instead of 32) and uses dilated convolutions"""
    channels: Width = 256
    """width of the transformer; a multiple of 4 and of heads"""
    heads: PositiveInt = 8
    """number of attention heads"""
    feed_forward: Annotated[PositiveInt, at_most(1_000_000, "every layer has that many rows of weights")] = 2048
    """hidden width of the feed-forward networks"""
    encoder_layers: Annotated[int, Field(ge=0), _LAYERS] = 6
    """number of encoder layers; 0 for none"""
    decoder_layers: Blocks = 6
    """number of decoder layers; each has auxiliary losses in training"""
    queries: Annotated[PositiveInt, at_most(MOST_QUERIES, "every layer attends from each query to all others")] = 300
    """number of object queries, which limits the objects found in an image"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """dropout probability in attention, feed-forward and residual connections"""
    position_temperature: Annotated[float, Field(ge=1e-6), at_most(10**12, "float32 overflows")] = 10000.0
    """temperature of all sine encodings"""
    norm_between_layers: bool = False
    """pass the normalized output of each decoder layer on; for models fine-tuned in transformers with auxiliary_loss"""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_detr(cls, values: Any) -> Any:
        if isinstance(values, dict) and cast(dict[str, Any], values).get("decoder") == "detr":
            return {"classification": "softmax", "queries": 100, **values}
        return values

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, value: str | BackboneShape | BackboneConfig) -> str | BackboneShape | BackboneConfig:
        if isinstance(value, str) and value not in backbone_names():
            raise ValueError(f"must be one of {', '.join(backbone_names())}, or the shape of a ResNet, got {value!r}")
        return value

    @model_validator(mode="after")
    def _dilates(self) -> "Architecture":
        if self.dilation and self.backbone_family != "resnet":
            raise ValueError("dilation (DC5) is for a ResNet; leave it out, or choose efficientnet-lite0-stride16")
        return self

    @model_validator(mode="after")
    def _consistent_width(self) -> "Architecture":
        if self.channels % 4 or self.channels % self.heads:
            raise ValueError(f"channels must be a multiple of 4 and of heads ({self.heads}), got {self.channels}")
        return self

    @model_validator(mode="after")
    def _fits_memory(self) -> "Architecture":
        if self._rough_parameters() > MOST_PARAMETERS:
            raise ValueError(
                f"this network would have about {self._rough_parameters():.0e} parameters, more than {MOST_PARAMETERS:.0e}; "
                f"make channels, feed_forward, the number of layers or the backbone smaller"
            )
        return self

    def _rough_parameters(self) -> int:
        """Return the order of magnitude of the number of parameters."""
        channels, feed_forward = self.channels, 2 * self.channels * self.feed_forward
        layers = self.encoder_layers * (4 * channels**2 + feed_forward) + self.decoder_layers * (
            12 * channels**2 + feed_forward
        )
        shape = self.backbone if isinstance(self.backbone, BackboneShape) else None
        blocks = sum(n * width**2 for n, width in zip(shape.depths, shape.widths, strict=True)) if shape else 0
        return layers + self.queries * channels + blocks * (18 if shape and shape.block == "basic" else 1)

    @property
    def backbone_family(self) -> str:
        """Key of the backbone's family in ``BACKBONES``."""
        if not isinstance(self.backbone, str):
            return "resnet" if isinstance(self.backbone, BackboneShape) else "huggingface"
        return next(family for family, names in BACKBONES.items() if self.backbone in names)

    @property
    def softmax(self) -> bool:
        """True if classes compete in a softmax, with "no object" as the last logit."""
        return self.classification == "softmax"

    def logits(self, classes: int) -> int:
        """Return the number of logits per query: one per class, and with softmax one more for "no object"."""
        return classes + 1 if self.softmax else classes

    def classes(self, logits: int) -> int:
        """Return the number of classes of a class head with ``logits`` outputs."""
        return logits - 1 if self.softmax else logits

    def fits(self, other: "Architecture") -> list[str]:
        """Return the fields that differ and make the weights incompatible: all except queries and dropout."""
        return [
            key
            for key in Architecture.model_fields
            if key not in ("queries", "dropout") and getattr(self, key) != getattr(other, key)
        ]


# --- categories ---


@dataclass(frozen=True)
class Categories:
    """Mapping of logit index, category id and name: logit ``i`` means category ``ids[i]``, named ``names[i]``."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.ids)} category ids but {len(self.names)} names; give one name per id")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"category ids must differ from each other, got {list(self.ids)}")

    def __len__(self) -> int:
        return len(self.ids)

    def index_of(self, category_id: int) -> int:
        """Return the logit index of a category id. Raises ``ValueError`` for an unknown id."""
        if category_id not in self.ids:
            raise ValueError(f"category id {category_id} is not among {list(self.ids)}")
        return self.ids.index(category_id)

    def name_of(self, category_id: int) -> str:
        """Return the name of a category id. Raises ``ValueError`` for an unknown id."""
        return self.names[self.index_of(category_id)]


# --- input size ---

# Maximum number of pixels of a resized or padded image, 5792 x 5792. It keeps a wrong size and an image of extreme proportions
# from taking all memory.
MAX_PIXELS = 2**25

SizeRule = Literal["published", "transformers", "fit", "stretch"]
BoxFrame = Literal["image", "padded", "padded-with-mask"]


@dataclass(frozen=True)
class InputSize:
    """How images are resized and padded for a model, and what its boxes are relative to.

    Raises ``ValueError`` for lengths below 1, and for sizes of more than ``MAX_PIXELS``.

    sides: two lengths in pixels, see rule. rule: "published" scales the shorter side to the first length and the longer one
    to at most the second; "transformers" does the same, but rounds differently when the limit applies; "fit" scales the image
    to the largest size within (height, width); "stretch" scales it to exactly (height, width).
    padded: minimum (height, width) that images are padded to; None pads to the largest of the batch.
    boxes: what predicted boxes are relative to. "image": the image without padding (published). "padded": the padded image,
    with no padding mask for the model. "padded-with-mask": the padded image, with a padding mask.
    """

    sides: tuple[int, int] = (800, 1333)
    rule: SizeRule = "published"
    padded: tuple[int, int] | None = None
    boxes: BoxFrame = "image"

    def __post_init__(self) -> None:
        if self.rule not in get_args(SizeRule):
            raise ValueError(f"rule must be one of {get_args(SizeRule)}, got {self.rule!r}")
        if self.boxes not in get_args(BoxFrame):
            raise ValueError(f"boxes must be one of {get_args(BoxFrame)}, got {self.boxes!r}")
        # Of a shorter side and a limit, either may be huge: that of a square image, which is the smallest, is the lesser one.
        square = (min(self.sides), min(self.sides))
        smallest = self.sides if self.rule in ("fit", "stretch") else square
        for height, width in (smallest, self.padded or smallest):
            if min(height, width) < 1 or height * width > MAX_PIXELS:
                raise ValueError(f"height x width must be from 1 to {MAX_PIXELS} pixels, got {height} x {width}")

    @property
    def mask(self) -> bool:
        """True if the model gets a padding mask."""
        return self.boxes != "padded"

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which an image of this size is scaled, in pixels."""
        if self.rule == "published":
            return resized_size(height, width, *self.sides)
        if self.rule == "transformers":
            return _resized_size_of_transformers(height, width, *self.sides)
        if self.rule == "stretch":
            return self.sides
        scale = min(self.sides[0] / height, self.sides[1] / width)
        return max(int(height * scale), 1), max(int(width * scale), 1)

    def frame(self, height: int, width: int, padded: tuple[int, int]) -> tuple[float, float]:
        """Return the (height, width) by which boxes in 0..1 are multiplied, in pixels of the original image.

        height, width: size of the original image. padded: (height, width) of the padded batch.
        """
        if self.boxes == "image":
            return float(height), float(width)
        resized = self.resized(height, width)
        return height * padded[0] / resized[0], width * padded[1] / resized[1]


def resized_size(height: int, width: int, short_side: int, max_size: int | None) -> tuple[int, int]:
    """Return (height, width) with the shorter side scaled to ``short_side`` and the longer one to at most ``max_size``.

    This is the published rule. When the limit applies, the *shorter* side is rounded first, so the longer one can exceed the
    limit, by a pixel in images of usual proportions. No side becomes 0: where the published rule gives 0, the sides are 1 and
    ``max_size``.
    """
    if max_size is not None and max(height, width) / min(height, width) * short_side > max_size:
        short_side = round(max_size * min(height, width) / max(height, width))
        if short_side == 0:
            return (max_size, 1) if width < height else (1, max_size)
    if min(height, width) == short_side:
        return height, width
    if width < height:
        return int(short_side * height / width), short_side
    return short_side, int(short_side * width / height)


def _resized_size_of_transformers(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """Compute ``resized_size``, but derive the longer side from the shorter one before rounding it."""
    shorter, longer = min(height, width), max(height, width)
    exact: float = short_side
    if longer / shorter * short_side > max_size:
        exact = max_size * shorter / longer
        short_side = round(exact)
        if short_side == 0:
            return (max_size, 1) if width < height else (1, max_size)
    if shorter == short_side:
        return height, width
    return (int(exact * height / width), short_side) if width < height else (short_side, int(exact * width / height))


# --- thresholds ---


@dataclass(frozen=True)
class Thresholds:
    """Scores from which detections are kept with the best F1, as measured on validation data. All are in 0..1.

    overall: one threshold for all categories together. per_class: one for each logit index; None where it could not be measured.
    """

    overall: float
    per_class: tuple[float | None, ...]

    def __post_init__(self) -> None:
        for value in (self.overall, *self.per_class):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"thresholds must be in 0..1, got {value}")

    def to_dict(self) -> dict[str, Any]:
        """Return the thresholds as plain containers."""
        return {"all": self.overall, "per_class": list(self.per_class)}

    def of_rows(self) -> tuple[float, ...]:
        """Return the threshold of each logit index; ``overall`` where a category has none of its own."""
        return tuple(self.overall if value is None else value for value in self.per_class)


# --- the record ---


@dataclass(frozen=True)
class ModelRecord:
    """Description of a model without its weights: architecture, categories, input size and, once measured, thresholds."""

    architecture: Architecture
    categories: Categories
    input_size: InputSize = InputSize()
    thresholds: Thresholds | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain containers, with its version. Thresholds are left out where there are none."""
        return {
            "version": VERSION,
            "architecture": self.architecture.model_dump(mode="json"),
            "categories": {"ids": list(self.categories.ids), "names": list(self.categories.names)},
            "input_size": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in asdict(self.input_size).items()
            },
            **({} if self.thresholds is None else {"thresholds": self.thresholds.to_dict()}),
        }


class StoredRecord(NamedTuple):
    """Model record as stored in a file; missing parts are None or empty."""

    architecture: Mapping[str, Any]
    categories: Categories | None
    input_size: InputSize | None
    thresholds: Thresholds | None = None

    def thresholds_of(self, categories: Categories) -> Thresholds | None:
        """Return the thresholds if the model has the categories that they were measured for, which another program may change."""
        return self.thresholds if categories == self.categories else None


def read_record(values: Any, source: object) -> StoredRecord:
    """Read a record that ``ModelRecord.to_dict`` wrote, in this version or an older one. None gives an empty record.

    source: the file, for messages. Raises ``CheckpointError`` for a newer version and for malformed contents.
    """
    if values is None:
        return StoredRecord({}, None, None)
    version = cast("Mapping[str, Any]", values).get("version", 0) if isinstance(values, Mapping) else None
    if isinstance(version, int) and VERSION < version < 2**31:
        raise CheckpointError(newer_version(source, "record", version, VERSION))
    try:
        given = cast("Mapping[str, Any]", values)
        if _whole(version) not in range(VERSION + 1):
            raise ValueError(f"version {version}")
        if version == 0:
            given = _from_version_0(given)
        size, thresholds = given.get("input_size"), given.get("thresholds")
        categories = None if given.get("categories") is None else _categories(given["categories"])
        return StoredRecord(
            dict(given.get("architecture") or {}),
            categories,
            None if size is None else _input_size(size),
            None if thresholds is None else _thresholds(thresholds, categories),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source}: its model record is damaged ({repr(error)[:200]}); convert the original again"
        ) from error


def _from_version_0(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a record of version 0.1.0 to the current form."""
    architecture = {key: given[key] for key in ("position_temperature", "classification", "dilation") if key in given}
    names = given.get("category_names")
    categories = None if names is None else {"ids": given["category_ids"], "names": names}
    return {"architecture": architecture, "categories": categories, "input_size": given.get("input_size")}


def _categories(given: Mapping[str, Any]) -> Categories:
    return Categories(tuple(map(_id, given["ids"])), tuple(map(str, given["names"])))


def _thresholds(given: Mapping[str, Any], categories: Categories | None) -> Thresholds:
    per_class = tuple(None if value is None else _score(value) for value in given["per_class"])
    if categories is None or len(per_class) != len(categories):
        raise ValueError(f"{len(per_class)} thresholds for {0 if categories is None else len(categories)} categories")
    return Thresholds(_score(given["all"]), per_class)


def _input_size(given: Mapping[str, Any]) -> InputSize:
    first, second = map(_side, given["sides"])
    padded = given["padded"]
    return InputSize(
        (first, second),
        given["rule"],
        None if padded is None else (_side(padded[0]), _side(padded[1])),
        given["boxes"],
    )


def _id(value: Any) -> int:
    if not -(2**63) <= _whole(value) < 2**63:
        raise ValueError(f"category id {value} has more than 64 bits")
    return value


def _side(value: Any) -> int:
    if not 1 <= _whole(value) < 2**31:
        raise ValueError(f"a side of {value} pixels")
    return value


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    if not 0 <= value <= 1:
        raise ValueError(f"a score of {value}")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value
