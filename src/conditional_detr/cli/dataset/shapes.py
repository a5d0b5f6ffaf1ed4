"""``cdetr dataset shapes``."""

from functools import partial

from conditional_detr.cli.dataset.generated import Seed, TrainImages, ValImages, generate
from conditional_detr.cli.dataset.options import AsJSON, NewFolder


def command(
    out: NewFolder,
    images: TrainImages = 2000,
    val_images: ValImages = 300,
    seed: Seed = 0,
    as_json: AsJSON = False,
) -> None:
    """Generate the data set "shapes" in COCO layout: images of 96 x 96 pixels with rectangles, ellipses and triangles."""
    from conditional_detr.data.shapes import write_shapes

    advice = f"train with: cdetr train conditional-detr_tiny_shapes data.root={out}"
    generate(partial(write_shapes, out, seed=seed), {"train": images, "val": val_images}, out, advice, as_json)
