"""Measure the AP of a detector on large images with small objects, with and without tiles, as a table in Markdown.

python scripts/tiles_ap.py [starter:tiny] [--images 20] [--grid 6] [--tiles 96 128 192 288]

The images are mosaics: grids of the generated images of ``cdetr dataset shapes``, so that every object and its box are known.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from conditional_detr import Annotations, Detections, Detector, Tiling, predict_tiles, read_coco
from conditional_detr.data.generated import Drawing, Recipe, write_generated
from conditional_detr.data.shapes import SIDE, draw_shapes
from conditional_detr.evaluation.coco import CocoEvaluator, CocoMetrics, standard_max_dets
from conditional_detr.record import Categories

OBJECT = Categories((1,), ("object",))  # what the starters know
LEAST = 0.05  # boxes with a lower score hardly change AP


def mosaic(rng: np.random.Generator, grid: int) -> Drawing:
    """Draw a grid of generated images as one image."""
    whole = Image.new("RGB", (grid * SIDE, grid * SIDE))
    boxes: list[tuple[int, int, int, int]] = []
    for row in range(grid):
        for column in range(grid):
            part = draw_shapes(rng)
            whole.paste(part.image, (column * SIDE, row * SIDE))
            boxes += [(x + column * SIDE, y + row * SIDE, width, height) for x, y, width, height in part.boxes]
    return Drawing(whole, boxes, [1] * len(boxes))


def mosaics(folder: Path, images: int, grid: int) -> Annotations:
    recipe = Recipe("mosaics", lambda rng: mosaic(rng, grid), OBJECT)
    write_generated(folder, recipe, {"val": images}, seed=2)
    return read_coco(folder / "annotations" / "instances_val2017.json", [folder / "val2017"])


def measure(data: Annotations, detect: Callable[[Path], Detections]) -> tuple[CocoMetrics, float]:
    """Return the metrics, and the seconds for an image."""
    results = []
    started = time.perf_counter()
    for index, image_id in enumerate(data.image_ids.tolist()):
        results += detect(data.path(index)).to_coco(image_id)
    seconds = (time.perf_counter() - started) / len(data)
    return CocoEvaluator(data).evaluate(results, standard_max_dets(data)), seconds


def rows(detector: Detector, data: Annotations, tiles: list[int]) -> Iterator[tuple[str, CocoMetrics, float]]:
    yield "none", *measure(data, lambda file: detector.predict(file, LEAST))
    for side in tiles:
        tiling = Tiling(side)
        yield str(side), *measure(data, lambda file, tiling=tiling: predict_tiles(detector, file, tiling, LEAST))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="starter:tiny")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--grid", type=int, default=6, help="images of 96 x 96 pixels in a row and in a column")
    parser.add_argument("--tiles", type=int, nargs="+", default=[96, 128, 192, 288])
    arguments = parser.parse_args()
    detector = Detector.from_pretrained(arguments.source)
    with tempfile.TemporaryDirectory() as folder:
        data = mosaics(Path(folder) / "mosaics", arguments.images, arguments.grid)
        objects = round(float(data.object_counts.mean()))
        print(f"{len(data)} images of {arguments.grid * SIDE} x {arguments.grid * SIDE}, {objects} objects each\n")
        print("| tiles | AP | AP50 | recall | seconds |\n|---|---|---|---|---|")
        for name, metrics, seconds in rows(detector, data, arguments.tiles):
            values = " | ".join(f"{metrics.values[key]:.3f}" for key in ("AP", "AP50", "AR"))
            print(f"| {name} | {values} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
