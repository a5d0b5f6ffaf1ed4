"""Pictures in a run folder: curves, and a page of validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.images import read_image
from conditional_detr.drawing import color_of, draw_boxes, page_of_pairs, plot_curves, write_picture
from conditional_detr.runs import Metrics
from conditional_detr.structures import Detections

SHOWN_ABOVE = 0.3  # minimum score of drawn detections
HEIGHT = 256  # height of a picture on a page, in pixels


class SampleImages:
    """Sample images for pages of predictions, spread evenly over the images with objects (over all if none has any)."""

    def __init__(self, data: Annotations, count: int = 8) -> None:
        with_objects = np.flatnonzero(data.object_counts > 0)
        candidates = with_objects if len(with_objects) else np.arange(len(data))
        spread = np.linspace(0, len(candidates) - 1, min(count, len(candidates))).round().astype(int)
        self.data = data
        self.indices: list[int] = candidates[spread].tolist()
        self.image_ids: list[int] = [int(data.image_ids[i]) for i in self.indices]

    def draw(self, detections: Mapping[int, Detections], file: Path) -> None:
        """Write a page of ground truth beside detections. detections: by image id; images without an entry are left out."""
        pairs = [
            self._pair(index, detections[image_id])
            for index, image_id in zip(self.indices, self.image_ids, strict=True)
            if image_id in detections
        ]
        if pairs:
            page = page_of_pairs(pairs, ("ground truth", f"predictions, score from {SHOWN_ABOVE}"))
            write_picture(page, file, quality=90)

    def _pair(self, index: int, found: Detections) -> tuple[Image.Image, Image.Image]:
        data = self.data
        image = read_image(data.path(index))
        scale = HEIGHT / image.height
        image = image.resize((min(max(round(image.width * scale), 1), 4 * HEIGHT), HEIGHT), Image.Resampling.BILINEAR)
        boxes, labels = data.training_objects(index)
        truth = draw_boxes(
            image,
            torch.from_numpy(boxes) * scale,
            [data.categories.names[label] for label in labels],
            [color_of(data.categories.ids[label]) for label in labels],
        )
        shown = found.above(SHOWN_ABOVE)
        return truth, replace(shown, boxes=shown.boxes * scale).draw(image)


def plot_run(records: Sequence[Metrics], file: Path) -> None:
    """Plot loss and AP of a run over its epochs. records: lines of metrics.jsonl."""
    plot_curves(
        [(record["epoch"], record["loss"]) for record in records if record["kind"] == "train"],
        [(record["epoch"], record["AP"], record["AP50"]) for record in records if record["kind"] == "evaluation"],
        file,
    )
