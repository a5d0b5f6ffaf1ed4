"""Conditional DETR (Meng et al., ICCV 2021): train, evaluate, run, explain and convert the detector."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conditional_detr.allocator import keep_freed_memory
    from conditional_detr.architecture import Architecture
    from conditional_detr.checkpoints.checkpoint import Checkpoint
    from conditional_detr.checkpoints.conversion import convert
    from conditional_detr.checkpoints.opening import open_checkpoint
    from conditional_detr.config import Settings, load_settings
    from conditional_detr.data.annotations import Annotations
    from conditional_detr.data.images import open_image
    from conditional_detr.data.reading import read_coco, read_split
    from conditional_detr.errors import (
        CheckpointError,
        DataError,
        ImageError,
        InputError,
        NonFiniteError,
        RunError,
        SettingsError,
    )
    from conditional_detr.evaluation.coco import CocoMetrics, evaluate_detector
    from conditional_detr.explain.attention_maps import AttentionMaps, Explanation
    from conditional_detr.inference.detector import Detector
    from conditional_detr.inference.tiles import Tiling, predict_tiles
    from conditional_detr.input_size import InputSize
    from conditional_detr.model.network import DETR, ConditionalDETR, build_model
    from conditional_detr.record import Categories, ModelRecord
    from conditional_detr.runs import RunFolder
    from conditional_detr.structures import Detection, Detections, ImageBatch, Predictions, Target
    from conditional_detr.training.callbacks import Callback, Summary
    from conditional_detr.training.report import Reporter
    from conditional_detr.training.starting import resume, train
    from conditional_detr.video import Video

__version__ = version("conditional-detr")

# Imported on first use: the command line answers without loading torch.
_HOMES = {
    "Annotations": "data.annotations",
    "Architecture": "architecture",
    "AttentionMaps": "explain.attention_maps",
    "Callback": "training.callbacks",
    "Categories": "record",
    "Checkpoint": "checkpoints.checkpoint",
    "CheckpointError": "errors",
    "CocoMetrics": "evaluation.coco",
    "ConditionalDETR": "model.network",
    "DETR": "model.network",
    "DataError": "errors",
    "Detection": "structures",
    "Detections": "structures",
    "Detector": "inference.detector",
    "Explanation": "explain.attention_maps",
    "ImageBatch": "structures",
    "ImageError": "errors",
    "InputError": "errors",
    "InputSize": "input_size",
    "ModelRecord": "record",
    "NonFiniteError": "errors",
    "Predictions": "structures",
    "Reporter": "training.report",
    "RunError": "errors",
    "RunFolder": "runs",
    "Settings": "config",
    "SettingsError": "errors",
    "Summary": "training.callbacks",
    "Target": "structures",
    "Tiling": "inference.tiles",
    "Video": "video",
    "build_model": "model.network",
    "convert": "checkpoints.conversion",
    "evaluate_detector": "evaluation.coco",
    "keep_freed_memory": "allocator",
    "load_settings": "config",
    "open_checkpoint": "checkpoints.opening",
    "open_image": "data.images",
    "predict_tiles": "inference.tiles",
    "read_coco": "data.reading",
    "read_split": "data.reading",
    "resume": "training.starting",
    "train": "training.starting",
}

__all__ = [
    "DETR",
    "Annotations",
    "Architecture",
    "AttentionMaps",
    "Callback",
    "Categories",
    "Checkpoint",
    "CheckpointError",
    "CocoMetrics",
    "ConditionalDETR",
    "DataError",
    "Detection",
    "Detections",
    "Detector",
    "Explanation",
    "ImageBatch",
    "ImageError",
    "InputError",
    "InputSize",
    "ModelRecord",
    "NonFiniteError",
    "Predictions",
    "Reporter",
    "RunError",
    "RunFolder",
    "Settings",
    "SettingsError",
    "Summary",
    "Target",
    "Tiling",
    "Video",
    "build_model",
    "convert",
    "evaluate_detector",
    "keep_freed_memory",
    "load_settings",
    "open_checkpoint",
    "open_image",
    "predict_tiles",
    "read_coco",
    "read_split",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"conditional_detr.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'conditional_detr' has no attribute {name!r}")
