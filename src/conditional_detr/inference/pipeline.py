"""Images -> batch -> runtime -> detections: the one way, for prediction, evaluation, attention maps and benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """A runtime and the record of the model that it runs. Safe to use from several threads at once."""

    record: ModelRecord
    runtime: Runtime

    def prepare(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """Bring an RGB image to the model's size, and to normalized pixels."""
        return prepare(image, self.record.input_size)

    def batch(self, pixels: Sequence[Tensor]) -> ImageBatch:
        """Pad prepared images to one batch."""
        return pad(pixels, self.record.input_size)

    def frames(self, sizes: Sequence[tuple[int, int]], batch: ImageBatch) -> list[tuple[float, float]]:
        """Return the (height, width) that boxes in 0..1 are relative to, in pixels of images of these (height, width)."""
        return [self.record.input_size.frame(height, width, batch.size) for height, width in sizes]

    def detect(self, batch: ImageBatch, sizes: Sequence[tuple[int, int]], count: int | None = None) -> list[Detections]:
        """Find objects in every image of a batch, without a threshold.

        sizes: (height, width) of the images before they were prepared. count: most detections per image; by default as many
        as queries, at least 100.
        """
        architecture = self.record.architecture
        return detections_from(
            self.runtime(batch.pixels, batch.padding_mask),
            self.frames(sizes, batch),
            self.record.categories,
            count or max(PUBLISHED_COUNT, architecture.queries),
            architecture.softmax,
        )
