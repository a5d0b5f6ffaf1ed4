"""COCO AP: one evaluator for training, the command line and the Python interface."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster

from conditional_detr.config import EvaluationSettings
from conditional_detr.data.coco import CocoAnnotations
from conditional_detr.data.loading import Batch, evaluation_batches
from conditional_detr.data.transforms import InputSize
from conditional_detr.detector import Detector
from conditional_detr.errors import InputError
from conditional_detr.model.inference import FastDETR
from conditional_detr.model.network import DETR
from conditional_detr.postprocess import PUBLISHED_COUNT, detections_from
from conditional_detr.structures import Categories, Detections, Target

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class CocoMetrics:
    """The 12 numbers of COCO in 0..1, -1 where there is nothing to find, and AP by category id.

    values: by ``NAMES``; AR without a number counts ``max_dets`` detections per image, as all AP do.
    """

    values: dict[str, float]
    per_class: dict[int, float]
    max_dets: int


def standard_max_dets(annotations: CocoAnnotations) -> int:
    """100 as in COCO, or the most objects in an image where that is more."""
    return max(PUBLISHED_COUNT, int(np.diff(annotations.offsets).max()))


class CocoEvaluator:
    """Ground truth of an annotation file, crowds included, to compare results with."""

    def __init__(self, file: Path) -> None:
        """file: valid annotations (``read_annotations`` has read them)."""
        content: dict[str, Any] = json.loads(file.read_bytes())
        # Written anew: the evaluation needs area and iscrowd, which files may lack, and ids that differ and are not 0,
        # which it takes for "no match".
        content["annotations"] = [
            {
                "id": number,
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": annotation["bbox"],
                "area": _area(annotation),
                "iscrowd": int(bool(annotation.get("iscrowd"))),
            }
            for number, annotation in enumerate(content["annotations"], start=1)
        ]
        self._ground_truth = COCO({key: content[key] for key in ("images", "annotations", "categories")})

    def evaluate(self, results: list[dict[str, Any]], max_dets: int = PUBLISHED_COUNT) -> CocoMetrics:
        """AP and AR of COCO results over all images of the file."""
        found = self._ground_truth.loadRes([dict(result) for result in results])  # which adds keys to what it gets
        evaluation = COCOeval_faster(self._ground_truth, found, iouType="bbox")
        evaluation.params.maxDets = [1, 10, max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        precision = cast(np.ndarray, evaluation.eval["precision"])[:, :, :, 0, -1]  # thresholds, recalls, categories
        per_class = {
            int(id_): float(of_class[of_class > -1].mean()) if (of_class > -1).any() else -1.0
            for id_, of_class in zip(evaluation.params.catIds, np.moveaxis(precision, -1, 0), strict=True)
        }
        values = {name: float(value) for name, value in zip(NAMES, evaluation.stats[: len(NAMES)], strict=True)}
        return CocoMetrics(values, per_class, max_dets)


def _area(annotation: dict[str, Any]) -> float:
    """That of the object where the file tells it, or of its box."""
    given = annotation.get("area")
    return float(annotation["bbox"][2] * annotation["bbox"][3] if given is None else given)


def detect_batches(
    model: DETR | FastDETR,
    batches: Iterable[Batch],
    size: InputSize,
    categories: Categories,
    max_dets: int,
    device: torch.device,
) -> Iterator[tuple[Target, Detections]]:
    """Run the model over batches; detections are in pixels of the image file, without a threshold."""
    was_training = model.training
    model.eval()
    try:
        for images, targets in batches:
            with torch.inference_mode():
                images = images.to(device)
                predictions = model(images.pixels, images.padding_mask)
            sizes = [size.frame(*target.image_size, images.size) for target in targets]
            yield from zip(
                targets, detections_from(predictions, sizes, categories, max_dets, model.softmax), strict=True
            )
    finally:
        model.train(was_training)


def evaluate_detector(
    detector: Detector,
    data: CocoAnnotations,
    settings: EvaluationSettings,
    workers: int,
    size: InputSize | None = None,
    on_image: Callable[[int], None] = lambda done: None,
) -> tuple[CocoMetrics, list[dict[str, Any]]]:
    """Metrics of a detector on annotated images, and the COCO results they come from.

    workers: loading processes. size: that of the images, where it is not to be the detector's. on_image: called after every image with the number of images done. Raises ``InputError`` when the detector does not
    know a category of the data.
    """
    data_id_of = match_categories(detector.categories, data)
    max_dets = settings.max_dets or standard_max_dets(data)
    size = size or detector.checkpoint.input_size
    batches = evaluation_batches(data, size, settings.batch_size, workers)
    results: list[dict[str, Any]] = []
    found = detect_batches(detector.network, batches, size, detector.categories, max_dets, detector.device)
    for done, (target, detections) in enumerate(found, start=1):
        for result in detections.to_coco(target.image_id):
            if result["category_id"] in data_id_of:
                results.append({**result, "category_id": data_id_of[result["category_id"]]})
        on_image(done)
    return CocoEvaluator(data.file).evaluate(results, max_dets), results


def match_categories(model: Categories, data: CocoAnnotations) -> dict[int, int]:
    """The data's category id of every category id of the model that the data has: by id and name, else by name.

    Raises ``InputError`` naming a category of the data that the model does not have.
    """
    by_name = {name.casefold(): id_ for id_, name in zip(model.ids, model.names, strict=True)}
    found: dict[int, int] = {}
    for id_, name in zip(data.categories.ids, data.categories.names, strict=True):
        same = id_ in model.ids and model.name_of(id_).casefold() == name.casefold()
        own = id_ if same else by_name.get(name.casefold())
        if own is None:
            raise InputError(
                f"{data.file} has category {name!r}, which the model does not know (it knows {', '.join(model.names)}); "
                f"evaluate on data with the categories it was trained on"
            )
        found[own] = id_
    return found
