"""Pictures in a run folder: curves, a page of augmented training images, and a page of validation images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from conditional_detr.boxes import center_to_corners
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.images import read_image, to_image
from conditional_detr.data.loading import Sample
from conditional_detr.drawing import color_of, draw_boxes, page, plot_curves, write_picture
from conditional_detr.record import Categories
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
            columns = min(2, len(pairs))  # of pairs
            rows = [list(chain(*pairs[i : i + columns])) for i in range(0, len(pairs), columns)]
            picture = page(rows, ("ground truth", f"predictions, score from {SHOWN_ABOVE}") * columns)
            write_picture(picture, file, quality=90)

    def _pair(self, index: int, found: Detections) -> tuple[Image.Image, Image.Image]:
        data = self.data
        image = read_image(data.path(index))
        scale = HEIGHT / image.height
        image = _of_height(image)
        boxes, labels = data.training_objects(index)
        truth = _with_objects(image, torch.from_numpy(boxes) * scale, labels.tolist(), data.categories)
        shown = found.above(SHOWN_ABOVE)
        return truth, replace(shown, boxes=shown.boxes * scale).draw(image)


def draw_augmented(
    draws: Iterable[Sequence[Sample]], epochs: Sequence[int], categories: Categories, file: Path
) -> None:
    """Write a page of augmented images with their objects, a row per image. draws: samples of an image in these epochs."""
    rows: list[list[Image.Image]] = []
    for samples in draws:
        rows.append([])
        for pixels, target in samples:
            image = _of_height(to_image(pixels))
            boxes = center_to_corners(target.boxes) * torch.tensor(image.size * 2, dtype=torch.float32)
            rows[-1].append(_with_objects(image, boxes, target.labels.tolist(), categories))
    write_picture(page(rows, [f"epoch {epoch + 1}" for epoch in epochs]), file, quality=90)


def _of_height(image: Image.Image) -> Image.Image:
    """Scale an image to the height of pictures on a page. Very wide images are narrowed."""
    width = min(max(round(image.width * HEIGHT / image.height), 1), 4 * HEIGHT)
    return image.resize((width, HEIGHT), Image.Resampling.BILINEAR)


def _with_objects(image: Image.Image, boxes: Tensor, labels: Sequence[int], categories: Categories) -> Image.Image:
    names, colors = [categories.names[label] for label in labels], [color_of(categories.ids[label]) for label in labels]
    return draw_boxes(image, boxes, names, colors)


def plot_run(records: Sequence[Metrics], file: Path) -> None:
    """Plot loss and AP of a run over its epochs, where AP could be measured. records: lines of metrics.jsonl."""
    plot_curves(
        [(record["epoch"], record["loss"]) for record in records if record["kind"] == "train"],
        [
            (record["epoch"], record["AP"], record["AP50"])
            for record in records
            if record["kind"] == "evaluation" and record["AP"] >= 0
        ],
        file,
    )
