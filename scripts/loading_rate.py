"""Measure how many training images a loading process prepares per second, and estimate how many processes a GPU needs.

python scripts/loading_rate.py FOLDER [--images 60]

FOLDER: folder of JPEGs, with COCO's sizes for numbers like those in docs/performance.md. One process with one thread runs the
published augmentation.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conditional_detr.benchmark.counting import multiply_adds
from conditional_detr.config import DataSettings, load_settings
from conditional_detr.data import images as decoding
from conditional_detr.data import transforms
from conditional_detr.data.images import read_image, to_pixels
from conditional_detr.data.transforms import LabeledImage, augment, resized_size, scale_image

# Multiply-adds per second without sparsity. The data sheet's numbers are with sparsity, which doubles them, and count a
# multiply-add as two operations.
H200 = {"TF32": 989e12 / 4, "bfloat16": 1979e12 / 4}
SHARE = 0.4  # assumed fraction of that rate, high for a network of this kind
BOXES = torch.tensor([[10.0, 20.0, 110.0, 120.0]]).repeat(7, 1)


def prepare(file: Path, seed: int) -> None:
    sample = LabeledImage(read_image(file), BOXES, torch.zeros(7, dtype=torch.int64))
    sample = augment(sample, DataSettings(), np.random.default_rng(seed))
    sample.relative_boxes()
    to_pixels(sample.image)


def seconds_of(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def parts(files: list[Path]) -> dict[str, float]:
    """Return the mean milliseconds of each part of the work."""
    sizes = DataSettings().short_sides
    spent: dict[str, list[float]] = {"decode": [], "flip": [], "resize": [], "to normalized float": []}
    for i, file in enumerate(files):
        spent["decode"].append(seconds_of(lambda file=file: read_image(file)))
        image = read_image(file)
        spent["flip"].append(seconds_of(lambda image=image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
        size = resized_size(image.height, image.width, sizes[i % len(sizes)], 1333)
        spent["resize"].append(seconds_of(lambda image=image, size=size: scale_image(image, *size)))
        resized = scale_image(image, *size)
        spent["to normalized float"].append(seconds_of(lambda resized=resized: decoding.to_pixels(resized)))
    return {name: statistics.mean(values) * 1e3 for name, values in spent.items()}


def draft(file: Path) -> str:
    """Return the time that decoding at a reduced size saves for a photo of 12 megapixels, and the change of its pixels."""
    large = Path(tempfile.mkdtemp()) / "large.jpg"
    with Image.open(file) as image:
        image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC).save(large, quality=90)
    size = transforms.resized_size(3000, 4000, 800, 1333)

    def whole() -> Image.Image:
        return scale_image(read_image(large), *size)

    def reduced() -> Image.Image:
        with Image.open(large) as image:
            image.draft("RGB", size[::-1])
            return scale_image(image.convert("RGB"), *size)

    times = [statistics.median(seconds_of(run) for _ in range(5)) * 1e3 for run in (whole, reduced)]
    change = np.abs(np.asarray(whole(), dtype=int) - np.asarray(reduced(), dtype=int))
    return f"{times[0]:.0f} ms, reduced {times[1]:.0f} ms; values of 0..255 differ by {change.mean():.2f}, at most {change.max()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in the workers of a DataLoader
    files = sorted(arguments.folder.glob("*.jpg"))[: arguments.images]
    if not files:
        parser.error(f"{arguments.folder} holds no .jpg files")
    for i, file in enumerate(files[:10]):
        prepare(file, i)
    rates = [len(files) / seconds_of(lambda turn=turn: [prepare(f, turn) for f in files]) for turn in range(5)]
    rate = statistics.median(rates)
    print(f"{len(files)} images: {rate:.0f} images per second and process ({min(rates):.0f} - {max(rates):.0f})")
    for name, milliseconds in parts(files).items():
        print(f"  {name:20} {milliseconds:5.1f} ms")
    print(f"decoding 12 megapixels and scaling to 800: {draft(files[0])}")
    # A backward pass costs twice a forward pass, a little less with frozen parts.
    work = 3 * multiply_adds(load_settings("conditional-detr_r50_8xb2-50e_coco").model.resolved(), 91, (800, 1066))
    print(f"processes for a GPU, at {rate:.0f} images per second and process:")
    for wanted in (25, 50, 100, 200):
        print(f"  {wanted:4d} images per second: {wanted / rate:4.1f}")
    for precision, most in H200.items():
        wanted = SHARE * most / work
        print(f"  {wanted:4.0f} images per second, an H200 at {SHARE:.0%} of its {precision} rate: {wanted / rate:.1f}")


if __name__ == "__main__":
    main()
