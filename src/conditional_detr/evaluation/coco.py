"""COCO AP, with one evaluator for training, the command line and the Python interface."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from conditional_detr.config import EvaluationSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.loading import Batch, LeftOut, evaluation_batches
from conditional_detr.errors import DataError
from conditional_detr.inference.detector import Detector
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.postprocess import PUBLISHED_COUNT
from conditional_detr.record import Categories
from conditional_detr.structures import Detections, Target

logger = logging.getLogger(__name__)
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class CocoMetrics:
    """The 12 COCO metrics and per-class AP, in 0..1; -1 where the data has no objects to find.

    values: metrics by ``NAMES``. AP metrics and the AR metrics without a number take ``max_dets`` detections per image.
    per_class: AP by category id. max_dets: maximum number of detections per image.
    """

    values: dict[str, float]
    per_class: dict[int, float]
    max_dets: int


def standard_max_dets(annotations: Annotations) -> int:
    """Return 100 as in COCO, or the largest number of objects in an image if that is greater."""
    return max(PUBLISHED_COUNT, int(annotations.object_counts.max()))


class CocoEvaluator:
    """Ground truth, crowds included, that results are evaluated against."""

    def __init__(self, annotations: Annotations) -> None:
        self.categories = annotations.categories
        # Number ids from 1 for the metric: to it, 0 means "no match", and it can't represent all integers.
        self._image_number = {int(id_): number for number, id_ in enumerate(annotations.image_ids, start=1)}
        self._category_number = {id_: number for number, id_ in enumerate(self.categories.ids, start=1)}
        owners = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets)) + 1
        objects = zip(
            owners.tolist(),
            (annotations.labels + 1).tolist(),
            annotations.boxes.tolist(),
            annotations.areas.tolist(),
            annotations.crowd.tolist(),
            strict=True,
        )
        self._ground_truth = COCO(
            {
                "images": [
                    {"id": number, "height": height, "width": width}
                    for number, (height, width) in enumerate(annotations.sizes.tolist(), start=1)
                ],
                "categories": [
                    {"id": number, "name": name} for number, name in enumerate(self.categories.names, start=1)
                ],
                "annotations": [
                    {
                        "id": n,
                        "image_id": image,
                        "category_id": category,
                        "bbox": box,
                        "area": area,
                        "iscrowd": int(crowd),
                    }
                    for n, (image, category, box, area, crowd) in enumerate(objects, start=1)
                ],
            }
        )

    def evaluate(self, results: list[dict[str, Any]], max_dets: int = PUBLISHED_COUNT) -> CocoMetrics:
        """Return the metrics of results in COCO format, with image and category ids of the annotations."""
        numbered = [
            {
                **result,
                "image_id": self._image_number[result["image_id"]],
                "category_id": self._category_number[result["category_id"]],
            }
            for result in results
        ]
        found = self._ground_truth.loadRes(numbered)
        evaluation = COCOeval_faster(self._ground_truth, found, iouType="bbox")
        evaluation.params.maxDets = [1, 10, max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        precision = cast(np.ndarray, evaluation.eval["precision"])[:, :, :, 0, -1]  # thresholds, recalls, categories
        per_class = {
            id_: float(of_class[of_class > -1].mean()) if (of_class > -1).any() else -1.0
            for id_, of_class in zip(self.categories.ids, np.moveaxis(precision, -1, 0), strict=True)
        }
        values = {name: float(value) for name, value in zip(NAMES, evaluation.stats[: len(NAMES)], strict=True)}
        return CocoMetrics(values, per_class, max_dets)


def detect_batches(pipeline: Pipeline, batches: Iterable[Batch], max_dets: int) -> Iterator[tuple[Target, Detections]]:
    """Yield targets with the detections in their images, in pixels of the image file, without a score threshold."""
    for images, targets in batches:
        found = pipeline.detect(images, [target.image_size for target in targets], max_dets)
        yield from zip(targets, found, strict=True)


def evaluate_detector(
    detector: Detector,
    data: Annotations,
    settings: EvaluationSettings,
    workers: int,
    on_image: Callable[[int], None] = lambda done: None,
    on_error: Literal["stop", "skip"] = "stop",
) -> tuple[CocoMetrics, list[dict[str, Any]]]:
    """Evaluate a detector on annotated images. Return the metrics, and the evaluated detections as results in COCO format.

    detector: a trained model. data: the annotations, as ``read_split`` returns them. settings: batch size and number of
    detections per image. workers: number of loading processes. on_image: called after every image with the number of images done. on_error: what
    to do about an image that can't be used; skip: log it and count it as one without detections. Raises ``DataError`` when the
    model lacks a category of the data, and the ``InputError`` of an image with ``on_error="stop"``.
    """
    data_id_of = match_categories(detector.categories, data)
    max_dets = settings.max_dets or standard_max_dets(data)
    left_out = LeftOut()
    batches = evaluation_batches(
        data,
        detector.record.input_size,
        settings.batch_size,
        workers,
        leave_out=left_out if on_error == "skip" else None,
    )
    results: list[dict[str, Any]] = []
    for done, (target, detections) in enumerate(detect_batches(detector.pipeline, batches, max_dets), start=1):
        for result in detections.to_coco(target.image_id):
            if result["category_id"] in data_id_of:
                results.append({**result, "category_id": data_id_of[result["category_id"]]})
        on_image(done)
    if left_out.names:
        logger.warning(
            f"{len(left_out.names)} of {len(data)} images were left out; AP counts them as without detections"
        )
    return CocoEvaluator(data).evaluate(results, max_dets), results


def match_categories(model: Categories, data: Annotations) -> dict[int, int]:
    """Return a map from category ids of the model to category ids of the data.

    Categories match by id and name, otherwise by name alone; a name that differs only in case counts where no other is equal.
    Categories that the data lacks are left out. Categories of the data without boxes do not matter. Raises ``DataError`` when the
    model lacks any other, and when it is not clear which one is meant.
    """
    used = np.bincount(data.labels, minlength=len(data.categories)) > 0
    exact, folded = dict[str, list[int]](), dict[str, list[int]]()
    for id_, name in zip(model.ids, model.names, strict=True):
        exact.setdefault(name, []).append(id_)
        folded.setdefault(name.casefold(), []).append(id_)
    found: dict[int, int] = {}
    of_data = zip(used.tolist(), data.categories.ids, data.categories.names, strict=True)
    for has_boxes, id_, name in sorted(
        of_data, reverse=True
    ):  # those without boxes last, because they take what is left
        candidates = exact.get(name) or folded.get(name.casefold(), [])
        own = id_ if id_ in candidates else next(iter(candidates), None)
        if has_boxes and own is not None and (own in found or (len(candidates) > 1 and own != id_)):
            ids = ", ".join(map(str, candidates))
            raise DataError(
                f"{data.source}: category {id_}, {name!r}, can't be told apart from others of that name (the model has it with id {ids}); "
                f"give the categories names of their own"
            )
        if not has_boxes and own in found:
            continue
        if own is None:
            if not has_boxes:
                continue
            known = ", ".join(model.names[:10]) + (f" and {more} more" if (more := len(model.names) - 10) > 0 else "")
            raise DataError(
                f"{data.source} has category {name!r}, which the model does not know (it knows {known}); "
                f"evaluate on data with the categories it was trained on, or give the names of its categories",
                argument="names",
            )
        found[own] = id_
    return found
