"""Pictures of a data set: pages of annotated images, and plots of its numbers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.images import read_image
from conditional_detr.data.inspection.statistics import LARGE, SMALL, box_sides
from conditional_detr.data.layouts import Split
from conditional_detr.drawing import color_of, draw_boxes, page_of_pictures, write_picture
from conditional_detr.errors import DataError
from conditional_detr.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL = 360  # longer side of a picture on a page, in pixels
MOST_CLASSES = 30  # in the plot of objects per category
_BINS = 40


def choose_images(data: Annotations, count: int, seed: int, category: str | None = None) -> list[int]:
    """Return the indices of at most ``count`` random images, in order. category: name of a category that they show.

    Raises ``DataError`` for an unknown category, and for one that no image shows.
    """
    candidates = np.arange(len(data))
    if category is not None:
        if category not in data.categories.names:
            raise DataError(
                f"{data.source} has no category {category!r}; it has {', '.join(map(repr, data.categories.names))}"
            )
        candidates = np.unique(data.owners[data.labels == data.categories.names.index(category)])
        if not len(candidates):
            raise DataError(f"no image of {data.source} shows category {category!r}; choose another")
    chosen = np.random.default_rng(seed).permutation(candidates)[:count]
    return sorted(chosen.tolist())


def annotated(data: Annotations, index: int) -> Image.Image:
    """Return image ``index``, scaled to ``CELL``, with all of its annotations. Those that are no objects are marked."""
    image = read_image(data.path(index))
    picture, scale = _in_cell(image), CELL / max(image.size)
    rows = data.objects(index)
    boxes, labels = data.boxes[rows], data.labels[rows].tolist()
    marks = np.where(data.crowd[rows], " (crowd)", np.where(data.usable[rows], "", " (unusable)")).tolist()
    names = [f"{data.categories.names[label]}{mark}" for label, mark in zip(labels, marks, strict=True)]
    colors = [color_of(data.categories.ids[label]) for label in labels]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) * scale
    order = np.argsort(boxes[:, 2] * boxes[:, 3], kind="stable").tolist()  # small ones are on top
    return draw_boxes(
        picture,
        torch.from_numpy(corners[order]).float(),
        [names[i] for i in order],
        [colors[i] for i in order],
    )


def _in_cell(image: Image.Image) -> Image.Image:
    scale = CELL / max(image.size)
    return image.resize([max(round(side * scale), 1) for side in image.size], Image.Resampling.BILINEAR)


def page_of_files(files: Sequence[tuple[Path, str]]) -> Image.Image:
    """Return a page of image files with captions. Raises ``ImageError`` for an image that can't be read."""
    return page_of_pictures([(_in_cell(read_image(path)), caption) for path, caption in files], CELL)


def plot_statistics(splits: Mapping[Split, Annotations], file: Path) -> None:
    """Plot sizes of images, objects per image and category, and sizes and positions of objects into an image file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9), layout="constrained")
    sizes, counts, classes, sides, aspects, centers = figure.subplots(2, 3).ravel()
    most = max(int(data.object_counts.max()) for data in splits.values())
    step = math.ceil((most + 1) / _BINS)
    for split, data in splits.items():
        height, width = data.sizes.T
        sizes.scatter(width, height, s=8, alpha=0.4, label=split)
        _histogram(counts, data.object_counts, np.arange(0, most + 1 + step, step) - 0.5, split)
        usable = data.boxes[data.usable]
        _histogram(sides, box_sides(data), np.geomspace(1, max(data.sizes.max(), 2), _BINS), split)
        _histogram(aspects, usable[:, 2] / usable[:, 3], np.geomspace(1 / 8, 8, _BINS), split)
    sizes.set(title="images", xlabel="width in pixels", ylabel="height in pixels", xlim=(0, None), ylim=(0, None))
    counts.set(title="objects per image", xlabel="objects", ylabel="fraction of the images")
    sides.set(
        title="sizes of objects", xlabel="square root of width x height, in pixels", ylabel="fraction of the objects"
    )
    sides.set_xscale("log")
    for area in (SMALL, LARGE):
        sides.axvline(area**0.5, color="gray", linestyle=":")
    aspects.set(title="shapes of objects", xlabel="width / height", ylabel="fraction of the objects")
    aspects.set_xscale("log", base=2)
    _plot_classes(classes, splits)
    _plot_centers(centers, splits)
    for axes in (sizes, counts, classes, sides, aspects):
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right")
    write_picture(figure, file, dpi=90)


def _histogram(axes: "Axes", values: np.ndarray, bins: np.ndarray, label: str) -> None:
    """Plot which fraction of the values is in each bin."""
    axes.hist(
        values, bins.tolist(), weights=np.full(len(values), 1 / max(len(values), 1)), histtype="step", label=label
    )


def _plot_classes(axes: "Axes", splits: Mapping[Split, Annotations]) -> None:
    """Plot the number of objects of the most frequent categories, by the first split."""
    first = next(iter(splits.values()))
    counts = {
        split: np.bincount(data.labels[data.usable], minlength=len(first.categories))[: len(first.categories)]
        for split, data in splits.items()
        if data.categories == first.categories
    }
    order = np.argsort(-sum(counts.values()), kind="stable")[:MOST_CLASSES]
    start = np.zeros(len(order))
    for split, values in counts.items():
        axes.barh(np.arange(len(order)), values[order], left=start, label=split)
        start += values[order]
    names = [_short(first.categories.names[i]) for i in order]
    axes.set_yticks(np.arange(len(order)), names, fontsize=10 if len(order) <= MOST_CLASSES // 2 else 7)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.invert_yaxis()
    more = (
        f" (the {MOST_CLASSES} most frequent of {len(first.categories)})"
        if len(first.categories) > MOST_CLASSES
        else ""
    )
    axes.set(title=f"categories{more}", xlabel="objects")


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= 25 else f"{text[:24]}…"


def _plot_centers(axes: "Axes", splits: Mapping[Split, Annotations]) -> None:
    """Plot where the centers of the objects are in their images."""
    centers = [
        (data.boxes[data.usable, :2] + data.boxes[data.usable, 2:] / 2) / data.sizes[data.owners[data.usable]][:, ::-1]
        for data in splits.values()
    ]
    x, y = np.concatenate(centers).T
    axes.hist2d(x, y, bins=25, range=((0, 1), (0, 1)), cmap="viridis")
    axes.invert_yaxis()
    axes.set(title="centers of objects", xlabel="x / width", ylabel="y / height")
