"""The pipeline from images to detections, shared by prediction, evaluation, attention maps and benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from conditional_detr.data.batching import pad, prepare
from conditional_detr.inference.postprocess import PUBLISHED_COUNT, detections_from
from conditional_detr.inference.runtimes import Runtime
from conditional_detr.record import ModelRecord
from conditional_detr.structures import Detections, ImageBatch


@dataclass(frozen=True)
class Pipeline:
    """A runtime with the record of its model. Several threads may use it at once."""

    record: ModelRecord
    runtime: Runtime

    def shared(self, streams: int) -> "Pipeline | None":
        """Return the same for so many threads at the same time, each with its part of the processor; None if they are not faster."""
        runtime = self.runtime.shared(streams) if streams > 1 else None
        return replace(self, runtime=runtime) if runtime else None

    def prepare(self, image: Image.Image, name: str = "image") -> Float[Tensor, "3 height width"]:
        """Scale an RGB image to the input size of the model, and return its normalized pixels. Raises ``ImageError``.

        name: name of the image in messages.
        """
        return prepare(image, self.record.input_size, name)

    def batch(self, pixels: Sequence[Tensor]) -> ImageBatch:
        """Pad prepared images and return them as one batch."""
        return pad(pixels, self.record.input_size)

    def frames(self, sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> list[tuple[float, float]]:
        """Return the (height, width) in image pixels that scale boxes in 0..1. sizes: (height, width) of the images."""
        return [self.record.input_size.frame(height, width, batch.size) for height, width in sizes]

    def detect(self, batch: ImageBatch, sizes: Sequence[tuple[int, int]], count: int | None = None) -> list[Detections]:
        """Find objects in every image of a batch, without a threshold.

        sizes: (height, width) of the images before ``prepare``, in pixels. count: maximum number of detections per image; by
        default the number of queries, or 100 if that is greater. Boxes are in pixels of the images.
        """
        architecture = self.record.architecture
        return detections_from(
            self.runtime(batch.pixels, batch.padding_mask),
            self.frames(sizes, batch),
            self.record.categories,
            count or max(PUBLISHED_COUNT, architecture.queries),
            architecture.softmax,
        )
