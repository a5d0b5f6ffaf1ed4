"""Conditional DETR (Meng et al., ICCV 2021): train, evaluate, run and convert the detector."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conditional_detr.config import Settings, load_settings
    from conditional_detr.detector import Detector
    from conditional_detr.errors import InputError, NonFiniteError
    from conditional_detr.model.network import ConditionalDETR, build_model
    from conditional_detr.structures import Categories, Detections, ImageBatch, Predictions, Target
    from conditional_detr.training.loop import resume, train

__version__ = version("conditional-detr")

# Imported on first use: the command line answers without loading torch.
_HOMES = {
    "Categories": "structures",
    "ConditionalDETR": "model.network",
    "Detections": "structures",
    "Detector": "detector",
    "ImageBatch": "structures",
    "InputError": "errors",
    "NonFiniteError": "errors",
    "Predictions": "structures",
    "Settings": "config",
    "Target": "structures",
    "build_model": "model.network",
    "load_settings": "config",
    "resume": "training.loop",
    "train": "training.loop",
}

__all__ = [
    "Categories",
    "ConditionalDETR",
    "Detections",
    "Detector",
    "ImageBatch",
    "InputError",
    "NonFiniteError",
    "Predictions",
    "Settings",
    "Target",
    "build_model",
    "load_settings",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"conditional_detr.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'conditional_detr' has no attribute {name!r}")
