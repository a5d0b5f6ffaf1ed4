"""ImageNet weights of a backbone: torchvision's ``.pth`` files, or safetensors with the same names."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor

from conditional_detr.checkpoints.checkpoint import load_strictly
from conditional_detr.checkpoints.safe_load import load_pth, load_safetensors
from conditional_detr.errors import CheckpointError
from conditional_detr.model.backbones import Backbone, family
from conditional_detr.record import Architecture


def load_backbone_weights(backbone: Backbone, architecture: Architecture, file: Path) -> None:
    """Load all parameters of ``backbone`` from ``file``; the file's classifier is ignored.

    Raises ``CheckpointError`` for a file that can't be read or that holds weights of another architecture.
    """
    content = load_safetensors(file) if file.suffix == ".safetensors" else load_pth(file)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"backbone weights {file} must map names to tensors, as torchvision's files do")
    given = cast(Mapping[str, Tensor], content)
    classifier = family(architecture.backbone_family).CLASSIFIER
    load_strictly(backbone, {name: value for name, value in given.items() if not name.startswith(classifier)}, file)
