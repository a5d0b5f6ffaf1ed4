"""Settings that determine a network: sizes, decoder and backbone, with bounds against slips of the keyboard. Imports no torch."""

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError


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
