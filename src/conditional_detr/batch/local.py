"""Compute shards in this process, one after another."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from conditional_detr.batch.images import image_of
from conditional_detr.batch.plan import Plan
from conditional_detr.batch.rows import Row
from conditional_detr.batch.shards import BatchFolder
from conditional_detr.errors import InputError

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector

OnImages = Callable[[int], object]  # is called with the number of images that were finished since the last call


def run(
    detector: "Detector", folder: BatchFolder, paths: Sequence[str], shards: Iterable[int], on_images: OnImages
) -> None:
    """Compute and write shards. Memory does not depend on their number.

    detector: the one that the plan of the folder is of. paths: addresses of all images of the plan. Raises ``RunError`` when a store
    does not answer; what is finished stays.
    """
    for shard in shards:
        folder.write(shard, compute(detector, folder.plan, folder.plan.paths_of(shard, paths), on_images))


def compute(
    detector: "Detector", plan: Plan, paths: Sequence[str], on_images: OnImages = lambda count: None
) -> list[Row]:
    """Return the rows of images. Batches never reach beyond ``paths``, so rows do not depend on where a command goes on."""
    rows: list[Row] = []
    images = map(image_of, paths)
    for path, found in zip(paths, detector.stream(images, plan.threshold, batch_size=plan.batch_size), strict=True):
        if isinstance(found, InputError):
            rows.append(Row(path, error=str(found)))
        else:
            rows.append(Row(path, found.image.width, found.image.height, found.detections))
        on_images(1)
    return rows
