"""ResNet (He et al., CVPR 2016; stride in the 3x3 convolution), with torchvision's parameter names."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from conditional_detr.architecture import Architecture, BackboneConfig, BackboneShape
from conditional_detr.model.backbones import Backbone, ImageNetFile, Naming
from conditional_detr.model.batch_norm import FrozenBatchNorm2d, FusedConvolution, normalized_convolution

Norm = Callable[[int], nn.Module]

_URL = "https://download.pytorch.org/models/"
_FILES = {"resnet18": "f37072fd", "resnet34": "b627a593", "resnet50": "0676ba61", "resnet101": "63fe2227"}
IMAGENET = {
    name: ImageNetFile(f"{name}-{digits}.pth", sha256=digits, license="BSD-3-Clause", url=f"{_URL}{name}-{digits}.pth")
    for name, digits in _FILES.items()
}
TIMM = {name: (name, 4) for name in _FILES}
SHAPES = {
    "resnet18": BackboneShape(block="basic", depths=(2, 2, 2, 2), widths=(64, 128, 256, 512)),
    "resnet34": BackboneShape(block="basic", depths=(3, 4, 6, 3), widths=(64, 128, 256, 512)),
    "resnet50": BackboneShape(block="bottleneck", depths=(3, 4, 6, 3), widths=(256, 512, 1024, 2048)),
    "resnet101": BackboneShape(block="bottleneck", depths=(3, 4, 23, 3), widths=(256, 512, 1024, 2048)),
}


# --- the network ---


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


def _projection(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential:
    """Projection shortcut; identity where shapes already match."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), norm(outputs))


def _joined(residual: Tensor, x: Tensor, projection: nn.Sequential) -> Tensor:
    shortcut = normalized_convolution(x, *projection) if len(projection) else x
    return residual.add_(shortcut).relu_()


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, *, inputs: int, outputs: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.downsample = _projection(inputs, outputs, stride, norm)
        self.conv1 = _convolution(inputs, outputs, 3, stride, dilation)
        self.bn1 = norm(outputs)
        self.conv2 = _convolution(outputs, outputs, 3, dilation=dilation)
        self.bn2 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = normalized_convolution(x, self.conv1, self.bn1).relu_()
        residual = normalized_convolution(residual, self.conv2, self.bn2)
        return _joined(residual, x, self.downsample)


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions; the first two have a quarter of the output channels."""

    def __init__(self, *, inputs: int, outputs: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        inner = outputs // 4
        self.downsample = _projection(inputs, outputs, stride, norm)
        self.conv1 = _convolution(inputs, inner, 1)
        self.bn1 = norm(inner)
        self.conv2 = _convolution(inner, inner, 3, stride, dilation)
        self.bn2 = norm(inner)
        self.conv3 = _convolution(inner, outputs, 1)
        self.bn3 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = normalized_convolution(x, self.conv1, self.bn1).relu_()
        residual = normalized_convolution(residual, self.conv2, self.bn2).relu_()
        residual = normalized_convolution(residual, self.conv3, self.bn3)
        return _joined(residual, x, self.downsample)


class ResNet(Backbone):
    """ResNet without its classifier. The output is the feature map of the last stage.

    block: kind of residual block. depths: blocks per stage. widths: output channels per stage. stem_width: channels of
    the 7x7 stem. dilation: the last stage keeps the resolution and its blocks after the first use dilation 2 (DC5).
    norm_frozen: constant batch norm (published) instead of trained.
    """

    def __init__(
        self,
        *,
        block: Literal["basic", "bottleneck"],
        depths: Sequence[int],
        widths: Sequence[int],
        stem_width: int,
        dilation: bool,
        norm_frozen: bool,
    ) -> None:
        super().__init__()
        norm: Norm = FrozenBatchNorm2d if norm_frozen else nn.BatchNorm2d
        kind = BasicBlock if block == "basic" else Bottleneck
        self.gradient_checkpointing = False
        self.norm_frozen = norm_frozen
        self.channels = widths[-1]
        self.stage_names = [f"layer{i + 1}" for i in range(len(depths))]

        self.conv1 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(stem_width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = stem_width
        for stage, (name, depth, outputs) in enumerate(zip(self.stage_names, depths, widths, strict=True)):
            dilated = dilation and stage == len(depths) - 1
            stride = 1 if stage == 0 or dilated else 2
            # The first block of a dilated stage keeps dilation 1, as in torchvision and the published DC5 weights.
            blocks = [kind(inputs=inputs, outputs=outputs, stride=stride, dilation=1, norm=norm)]
            rest = {"stride": 1, "dilation": 2 if dilated else 1}
            blocks += [kind(inputs=outputs, outputs=outputs, norm=norm, **rest) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            inputs = outputs

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def freeze(self, stages: int) -> None:
        """Stop training the stem and the first ``stages`` stages; -1 freezes nothing, not even the stem."""
        if stages < 0:
            return
        for name in ["conv1", "bn1", *self.stage_names[:stages]]:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        if pixels.device.type == "cpu":  # channels last is faster on a CPU, whatever the format of the weights
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        x = self.maxpool(normalized_convolution(pixels, self.conv1, self.bn1).relu_())
        for name in self.stage_names:
            stage = self.get_submodule(name)
            # Recomputing trained batch norm would update its statistics twice.
            if self.gradient_checkpointing and self.training and self.norm_frozen:
                x = cast(Tensor, checkpoint(stage, x, use_reentrant=False))
            else:
                x = stage(x)
        return x

    def fused(self) -> "FusedResNet":
        return FusedResNet(self)


class FusedBlock(nn.Module):
    """A residual block of fused convolutions, basic or bottleneck."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        parts = dict(block.named_children())
        names = [name for name in ("1", "2", "3") if f"conv{name}" in parts]
        self.convolutions = nn.ModuleList(FusedConvolution(parts[f"conv{name}"], parts[f"bn{name}"]) for name in names)
        projection = cast(nn.Sequential, parts["downsample"])
        self.projection = FusedConvolution(*projection) if len(projection) else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.projection is None else self.projection(x, activation="none")
        for convolution in self.convolutions[:-1]:
            x = convolution(x)
        return self.convolutions[-1](x, shortcut)


class FusedResNet(nn.Module):
    """A ``ResNet`` in evaluation mode, made of fused convolutions."""

    def __init__(self, backbone: ResNet) -> None:
        super().__init__()
        self.stem = FusedConvolution(backbone.conv1, backbone.bn1)
        self.maxpool = backbone.maxpool
        stages = (cast(nn.Sequential, backbone.get_submodule(name)) for name in backbone.stage_names)
        self.blocks = nn.Sequential(*(FusedBlock(block) for stage in stages for block in stage))

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        return self.blocks(self.maxpool(self.stem(pixels.contiguous(memory_format=torch.channels_last))))


def build(architecture: Architecture, *, norm_frozen: bool) -> ResNet:
    shape = _shape(architecture.backbone)
    return ResNet(
        block=shape.block,
        depths=shape.depths,
        widths=shape.widths,
        stem_width=shape.stem_width,
        dilation=architecture.dilation,
        norm_frozen=norm_frozen,
    )


def _shape(backbone: str | BackboneShape | BackboneConfig) -> BackboneShape:
    return SHAPES[backbone] if isinstance(backbone, str) else cast(BackboneShape, backbone)


# --- names ---

_TORCHVISION = re.compile(r"(?:layer\d+\.\d+\.)?(?:conv|bn)\d\.\w+|layer\d+\.\d+\.downsample\.[01]\.\w+")
_KIND = {"conv": "convolution", "bn": "normalization"}


def _to_transformers(name: str) -> str:
    if match := re.fullmatch(r"layer(\d+)\.(\d+)\.(conv|bn)(\d)\.(\w+)", name):
        stage, block, kind, number, parameter = match.groups()
        module = f"layer.{int(number) - 1}.{_KIND[kind]}"
    elif match := re.fullmatch(r"layer(\d+)\.(\d+)\.downsample\.(0|1)\.(\w+)", name):
        stage, block, number, parameter = match.groups()
        module = f"shortcut.{_KIND['conv' if number == '0' else 'bn']}"
    elif match := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"embedder.embedder.{_KIND[match[1]]}.{match[2]}"
    else:
        raise KeyError(name)
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{module}.{parameter}"


def _from_transformers(name: str) -> str | None:
    if match := re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", name):
        return f"{'conv1' if match[1] == 'convolution' else 'bn1'}.{match[2]}"
    match = re.fullmatch(
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut|layer\.(\d))\.(convolution|normalization)\.(\w+)", name
    )
    if match is None:
        return None
    stage, block, where, number, kind, parameter = match.groups()
    if where == "shortcut":
        module = f"downsample.{'0' if kind == 'convolution' else '1'}"
    else:
        module = f"{'conv' if kind == 'convolution' else 'bn'}{int(number) + 1}"
    return f"layer{int(stage) + 1}.{block}.{module}.{parameter}"


def named(name: str, naming: Naming) -> str:
    return _to_transformers(name) if naming == "transformers" else name


def ours(name: str, naming: Naming) -> str | None:
    if naming == "transformers":
        return _from_transformers(name)
    return name if _TORCHVISION.fullmatch(name) else None


def imagenet_anchors(names: Iterable[str]) -> set[str]:
    return set(names)


def from_imagenet(values: Mapping[str, Any], backbone: str | BackboneShape | BackboneConfig) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("fc.")}


# --- recognition ---


def recognize(values: Mapping[str, Tensor]) -> str | dict[str, Any] | None:
    if not any(name.startswith("layer1.0.conv") for name in values):
        return None
    stages = _count(values, r"layer(\d+)\.")
    block = "bottleneck" if "layer1.0.conv3.weight" in values else "basic"
    last = "conv3" if block == "bottleneck" else "conv2"
    return _name_or_shape(
        {
            "block": block,
            "depths": [_count(values, rf"layer{stage}\.(\d+)\.") for stage in range(1, stages + 1)],
            "widths": [len(values[f"layer{stage}.0.{last}.weight"]) for stage in range(1, stages + 1)],
            "stem_width": len(values["conv1.weight"]),
        }
    )


def _count(values: Mapping[str, Tensor], pattern: str) -> int:
    """Count the distinct numbers that the group of ``pattern`` matches in the names."""
    matches = (re.match(pattern, name) for name in values)
    return len({match[1] for match in matches if match})


def _name_or_shape(shape: dict[str, Any]) -> str | dict[str, Any]:
    return next((name for name, known in SHAPES.items() if known.model_dump(mode="json") == shape), shape)


def to_transformers(backbone: str | BackboneShape | BackboneConfig) -> dict[str, Any]:
    shape = _shape(backbone)
    return {
        "model_type": "resnet",
        "layer_type": shape.block,
        "depths": list(shape.depths),
        "hidden_sizes": list(shape.widths),
        "embedding_size": shape.stem_width,
        "downsample_in_bottleneck": False,
        "downsample_in_first_stage": False,
        "out_features": [f"stage{len(shape.depths)}"],
    }


def from_transformers(config: Mapping[str, Any]) -> str | dict[str, Any] | None:
    if config.get("model_type") != "resnet":
        return None
    if config.get("downsample_in_bottleneck") or config.get("downsample_in_first_stage"):
        raise ValueError("a ResNet that downsamples in its 1x1 convolutions or first stage is not supported")
    if config.get("hidden_act", "relu") != "relu":
        raise ValueError(f"a ResNet with {config['hidden_act']!r} is not supported; give one with 'relu'")
    keys = {"block": "layer_type", "depths": "depths", "widths": "hidden_sizes", "stem_width": "embedding_size"}
    return _name_or_shape({ours: config.get(theirs) for ours, theirs in keys.items()})
