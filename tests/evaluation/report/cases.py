"""Small annotations and detections for reports."""

from pathlib import Path

import numpy as np

from conditional_detr.data.annotations import Annotations
from conditional_detr.evaluation.coco import CocoEvaluator
from conditional_detr.evaluation.report import Analysis, Found, Matches, analyze, match
from conditional_detr.record import Categories

CATEGORIES = Categories((5, 9), ("cat", "dog"))
CAT, DOG = CATEGORIES.ids


def annotations(*images, crowds=(), categories: Categories = CATEGORIES, folder: Path = Path("/images")) -> Annotations:
    """Images of 100 x 100 pixels with (category id, x, y, width, height). crowds: rows that are crowds."""
    objects = [(i, *each) for i, image in enumerate(images) for each in image]
    boxes = np.array([each[2:] for each in objects], dtype=np.float64).reshape(-1, 4)
    return Annotations.of(
        source=Path("val.json"),
        folder=folder,
        categories=categories,
        image_ids=np.arange(len(images)) * 7 + 3,
        file_names=[f"{i}.png" for i in range(len(images))],
        sizes=np.full((len(images), 2), 100, dtype=np.int32),
        owners=np.array([each[0] for each in objects], dtype=np.int64),
        boxes=boxes,
        labels=np.array([categories.index_of(each[1]) for each in objects], dtype=np.int64),
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=np.isin(np.arange(len(objects)), crowds),
    )


def results(*images) -> list[dict]:
    """Detections (category id, score, x, y, width, height) in COCO format."""
    return [
        {"image_id": i * 7 + 3, "category_id": id_, "score": score, "bbox": box}
        for i, image in enumerate(images)
        for id_, score, *box in image
    ]


def matched(data: Annotations, found: list[dict]) -> Matches:
    return match(data, Found.of(found, data))


def analyzed(data: Annotations, found: list[dict]) -> Analysis:
    return analyze(matched(data, found), CocoEvaluator(data).evaluate(found, 1000))
