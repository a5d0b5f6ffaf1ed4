"""Measure what each augmentation costs a loading process: CPU time per image, and memory.

python scripts/augmentation_cost.py data.train_annotations=FILE data.train_images=FOLDER [key=value ...]

The settings are those of the published recipe for R50. Every line is a process of its own, with the augmentation on for every
image. "all" has the probabilities named in its line.
"""

import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from conditional_detr.config import DataSettings, load_settings
from conditional_detr.data.loading import training_images
from conditional_detr.data.reading import read_split
from conditional_detr.errors import InputError

IMAGES, REPEATS = 60, 3
ALL = {"mosaic": 0.5, "scale_jitter": 0.5, "vertical_flip": 0.5, "quarter_turns": 0.75, "color_jitter": 0.8}
CHANGES: dict[str, dict[str, float]] = {"published": {}, **{f"{key}=1": {key: 1.0} for key in ALL}, "all": ALL}


def measure(settings: DataSettings, decode_only: bool = False) -> tuple[float, float]:
    """Return the milliseconds per image, each the fastest of some repeats, and the peak memory in MiB."""
    torch.set_num_threads(1)  # as in the workers of a DataLoader
    images = training_images(read_split(settings, "train"), settings, seed=0)
    milliseconds: list[float] = []
    for index in range(min(IMAGES, len(images))):
        times: list[float] = []
        for _ in range(REPEATS):
            started = time.process_time()
            item = images.read(index) if decode_only else images[0, index]
            times.append(1e3 * (time.process_time() - started))
            if isinstance(item, InputError):
                raise item
        milliseconds.append(min(times))
    return statistics.mean(milliseconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    if len(sys.argv) < 2 or not all("=" in argument for argument in sys.argv[1:]):
        sys.exit(__doc__)
    settings = load_settings("conditional-detr_r50_8xb2-50e_coco", sys.argv[1:]).data
    context = multiprocessing.get_context("spawn")

    def alone(*arguments: object) -> tuple[float, float]:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(measure, *arguments).result()

    decoding, memory = alone(settings, True)
    print(f"{'':16}  ms per image  more than published  more MiB than decoding")
    print(f"{'decoding':16}  {decoding:12.1f}")
    published = 0.0
    for name, changes in CHANGES.items():
        milliseconds, peak = alone(settings.model_copy(update=changes))
        published = published or milliseconds
        print(f"{name:16}  {milliseconds:12.1f}  {milliseconds - published:+19.1f}  {peak - memory:22.0f}")
    print(f"all: {', '.join(f'{key}={value}' for key, value in ALL.items())}")


if __name__ == "__main__":
    main()
