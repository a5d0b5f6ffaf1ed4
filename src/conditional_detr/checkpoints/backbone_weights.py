"""ImageNet weights of a backbone: torchvision's ``.pth`` files, or safetensors with the same names."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from conditional_detr.checkpoints.checkpoint import load_strictly, network_state
from conditional_detr.checkpoints.contents import choose, find_weights
from conditional_detr.checkpoints.safe_load import load_weights
from conditional_detr.checkpoints.state import check_numbers
from conditional_detr.errors import CheckpointError
from conditional_detr.model.backbones import Backbone, family
from conditional_detr.record import Architecture

logger = logging.getLogger(__name__)


def load_backbone_weights(backbone: Backbone, architecture: Architecture, file: Path) -> None:
    """Load all parameters of ``backbone`` from ``file``; the file's classifier is ignored.

    The weights may lie under keys, and a prefix may stand in front of their names, as in checkpoints (``contents``). Raises
    ``CheckpointError`` for a file that can't be read, and for weights of another architecture, with NaN or with infinity.
    """
    content = load_weights(file)
    sets = (
        find_weights(cast("Mapping[Any, Any]", content), network_state(backbone), file)
        if isinstance(content, Mapping)
        else []
    )
    if not sets:
        raise CheckpointError(f"backbone weights {file} must map names to tensors, as torchvision's files do")
    weights = choose(sets, (), file)
    if weights.label != "top level":
        logger.info(f"{file}: the backbone's weights are those of {weights.label!r}")
    classifier = family(architecture.backbone_family).CLASSIFIER
    state: dict[str, Tensor] = {}
    for short, (name, value) in weights.entries.items():
        if short.startswith(classifier):
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{file}: {name} is no tensor, but of type {type(value).__name__}; give complete weights"
            )
        check_numbers(value, name, file)
        state[short] = value
    load_strictly(backbone, state, file)
