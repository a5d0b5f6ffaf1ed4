"""Backbones of transformers (``AutoBackbone``): ConvNeXt, Swin, DINOv2 and others, built from their configuration.

The output is the last of the feature maps that the configuration asks for. Batch norm is constant, as transformers computes it
in a detector.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conditional_detr.architecture import MOST_PARAMETERS, Architecture, BackboneConfig, BackboneShape
from conditional_detr.errors import InputError
from conditional_detr.model.backbones import Backbone, ImageNetFile, Naming
from conditional_detr.model.batch_norm import FrozenBatchNorm2d, scale_and_shift

IMAGENET: dict[str, ImageNetFile] = {}
TIMM: dict[str, tuple[str, int]] = {}

_LARGE = 4096  # in a configuration: above the widths of published backbones, so their size is not checked
_PREFIX = "model."  # of parameters, for the attribute of ``HuggingFaceBackbone``
# What names of these backbones begin with; those of transformers' own ResNet are another family's.
_NAME = re.compile(
    r"(?!encoder\.stages\.\d+\.layers\.\d+\.(?:shortcut|layer)\.)(?:\w+\.)?(?:embeddings|encoder|hidden_states_norms|layernorm)\..+"
)


class ConstantBatchNorm2d(FrozenBatchNorm2d):
    """Batch norm with fixed statistics, after any module."""

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = scale_and_shift(self)
        return x * scale[:, None, None] + shift[:, None, None]


class HuggingFaceBackbone(Backbone):
    """A backbone of transformers. Raises ``InputError`` for a configuration that transformers does not accept."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        try:
            from transformers import AutoBackbone, AutoConfig
        except ImportError as error:
            raise InputError(
                f"a {config.model_type} backbone needs transformers: pip install 'conditional-detr[transformers]'"
            ) from error
        values = config.model_dump(mode="json")
        try:
            made = AutoConfig.for_model(values.pop("model_type"), **values)
            if max((number for _, number in config.numbers()), default=0) >= _LARGE:
                with torch.device("meta"):
                    _check_size(AutoBackbone.from_config(made))
            self._build = partial(AutoBackbone.from_config, made)
            self.model: nn.Module = self._build()
        except InputError:
            raise
        except Exception as error:  # transformers raises many kinds
            first = str(error).strip().partition("\n")[0][:200]
            raise InputError(
                f"transformers makes no backbone of model.backbone={config.model_type} ({type(error).__name__}: {first}); "
                f"correct the configuration"
            ) from error
        _freeze_batch_norm(self.model)
        self.norm_frozen = True
        self.gradient_checkpointing = False
        self.channels = int(cast(Any, self.model).channels[-1])
        # Names in files stay when transformers renames modules, so ``state_dict`` has these.
        self._in_files = _names_in_files(self.model)
        self.model.register_state_dict_post_hook(partial(_rename, self._in_files))
        in_memory = {new: old for old, new in self._in_files.items()}
        self.model.register_load_state_dict_pre_hook(partial(_rename, in_memory))

    def freeze(self, stages: int) -> None:
        """Stop training the embedding of patches and the first ``stages`` stages; -1 freezes nothing."""
        if stages < 0:
            return
        self.model.get_submodule("embeddings").requires_grad_(False)
        encoder = self.model.get_submodule("encoder")
        blocks = next((part for part in encoder.children() if isinstance(part, nn.ModuleList)), nn.ModuleList())
        for block in blocks[:stages]:
            block.requires_grad_(False)

    def compute_buffers(self) -> None:
        """Take them from a second network, which is then dropped. Without it, Swin would look up its biases at random places."""
        missing = [name for name, buffer in self.model.named_buffers() if buffer.is_meta]
        if not missing:
            return
        with torch.random.fork_rng(devices=[]):  # its random weights are not used
            computed = self._build()
        for name in missing:
            owner, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(owner), last, computed.get_buffer(name))

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        model = cast(Any, self.model)
        if self.gradient_checkpointing and self.training and not model.is_gradient_checkpointing:
            model.gradient_checkpointing_enable()
        return model(pixels).feature_maps[-1]

    def fused(self) -> nn.Module:
        return self


def _check_size(model: nn.Module) -> None:
    """Raise ``InputError`` for a network on the meta device that no machine holds."""
    parameters = sum(value.numel() for value in model.parameters())
    if parameters > MOST_PARAMETERS:
        raise InputError(
            f"this backbone would have {parameters:.0e} parameters, more than {MOST_PARAMETERS:.0e}; make the numbers of model.backbone "
            f"smaller"
        )


def _names_in_files(model: nn.Module) -> dict[str, str]:
    """Return the names of parameters and buffers in memory, with those that transformers writes."""
    from transformers.core_model_loading import revert_weight_conversion

    values = {name: value[None] for name, value in model.state_dict().items()}  # no two are the same object
    written = revert_weight_conversion(cast(Any, model), dict(values))
    in_memory = {id(value): name for name, value in values.items()}
    if {id(value) for value in written.values()} != in_memory.keys():
        raise InputError("this backbone of transformers has other parameters in files than in memory; choose another")
    return {in_memory[id(value)]: name for name, value in written.items()}


def _rename(names: Mapping[str, str], module: nn.Module, values: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Give entries of a state dict below ``prefix`` other names, in the place of those that they have."""
    found = [name for name in values if name.startswith(prefix) and name.removeprefix(prefix) in names]
    renamed = {prefix + names[name.removeprefix(prefix)]: values.pop(name) for name in found}
    values.update(renamed)


def _freeze_batch_norm(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, ConstantBatchNorm2d(child.num_features))
        else:
            _freeze_batch_norm(child)


def build(architecture: Architecture, *, norm_frozen: bool) -> HuggingFaceBackbone:
    return HuggingFaceBackbone(cast(BackboneConfig, architecture.backbone))


# --- names ---


def named(name: str, naming: Naming) -> str:
    if not name.startswith(_PREFIX):
        raise KeyError(name)
    return name.removeprefix(_PREFIX) if naming == "transformers" else name


def ours(name: str, naming: Naming) -> str | None:
    if naming == "transformers":
        return _PREFIX + name if _NAME.fullmatch(name) else None
    return name if name.startswith(_PREFIX) and _NAME.fullmatch(name.removeprefix(_PREFIX)) else None


def imagenet_anchors(names: Iterable[str]) -> set[str]:
    return {short for name in names for short in (name, name.removeprefix(_PREFIX))}


def from_imagenet(values: Mapping[str, Any], backbone: str | BackboneShape | BackboneConfig) -> dict[str, Any]:
    """Names are those of transformers' classifiers, ``convnext.embeddings...``."""
    prefix = f"{cast(BackboneConfig, backbone).model_type}."
    own = {name.removeprefix(prefix): value for name, value in values.items()}
    return {_PREFIX + name: value for name, value in own.items() if not name.startswith(("classifier.", "pooler."))}


# --- recognition ---


def recognize(values: Mapping[str, Tensor]) -> None:
    return None  # the weights do not say all; the configuration is in the checkpoint


def to_transformers(backbone: str | BackboneShape | BackboneConfig) -> dict[str, Any]:
    return cast(BackboneConfig, backbone).model_dump(mode="json")


def from_transformers(config: Mapping[str, Any]) -> dict[str, Any] | None:
    return dict(config) if config.get("model_type") not in (None, "timm_backbone", "resnet") else None
