"""ImageNet weights of a backbone: torchvision's ``.pth`` files, or safetensors with the same names."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from conditional_detr.checkpoints.checkpoint import load_strictly
from conditional_detr.errors import InputError
from conditional_detr.model.backbone import ResNet


def load_backbone_weights(backbone: ResNet, file: Path) -> None:
    """Load all parameters of ``backbone`` from ``file``; the file's classifier is left out.

    Raises ``InputError`` for a file that can't be read or holds another architecture.
    """
    state = {name: value for name, value in _read(file).items() if not name.startswith("fc.")}
    load_strictly(backbone, state, file)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(
            f"backbone weights {file} can't be read ({error.strerror or error}); check the path"
        ) from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"backbone weights {file} are neither safetensors nor a plain .pth of tensors; download the file again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"backbone weights {file} must map names to tensors, as torchvision's files do")
    return content
