"""ImageNet weights of a backbone: torchvision's ``.pth`` files, or safetensors with the same names."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor

from conditional_detr.checkpoints.checkpoint import load_strictly
from conditional_detr.checkpoints.safe_load import load_pth, load_safetensors
from conditional_detr.errors import InputError
from conditional_detr.model.backbone import ResNet


def load_backbone_weights(backbone: ResNet, file: Path) -> None:
    """Load all parameters of ``backbone`` from ``file``; the file's classifier is left out.

    Raises ``InputError`` for a file that can't be read or holds another architecture.
    """
    content = load_safetensors(file) if file.suffix == ".safetensors" else load_pth(file)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"backbone weights {file} must map names to tensors, as torchvision's files do")
    given = cast(Mapping[str, Tensor], content)
    load_strictly(backbone, {name: value for name, value in given.items() if not name.startswith("fc.")}, file)
