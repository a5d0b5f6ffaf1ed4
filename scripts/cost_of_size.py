"""Measure the cost of matching, attention and reading annotations as the problem grows, as a table and a plot.

python scripts/cost_of_size.py cost-of-size.png [--images 10000 100000 1000000]

A million images take several minutes, 6 GiB of memory to read their JSON, and a million empty files in the folder for
temporary files.
"""

import argparse
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from conditional_detr.benchmark.inputs import Inputs
from conditional_detr.benchmark.measuring import Clock, Contender
from conditional_detr.config import LossSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.reading import read_coco
from conditional_detr.loss.criterion import build_criterion
from conditional_detr.model.encoder import EncoderLayer
from conditional_detr.structures import Predictions

LAYERS, BATCH, QUERIES, CLASSES = 6, 2, 300, 91
BOXES_PER_IMAGE = 7


def matching(objects: int) -> tuple[float, float]:
    """Return the milliseconds of the matcher, and of the rest of the loss with its gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(LAYERS, BATCH, QUERIES, CLASSES, generator=generator, requires_grad=True)
    boxes = torch.rand(LAYERS, BATCH, QUERIES, 4, generator=generator).mul(0.5).add(0.1).requires_grad_()
    targets = Inputs(BATCH, 480, 640).targets(CLASSES, objects)
    criterion = build_criterion(LossSettings())
    clock = Clock(torch.device("cpu"))
    criterion.matcher = clock.measured("matcher", criterion.matcher)

    def whole() -> None:
        criterion(Predictions(logits, boxes), targets, float(BATCH * objects)).total.backward()

    matcher, rest = [], []
    for _ in range(12):
        clock.seconds = {}
        seconds = _seconds(whole)
        matcher.append(clock.seconds["matcher"] * 1e3)
        rest.append(seconds * 1e3 - matcher[-1])
    return statistics.median(matcher[2:]), statistics.median(rest[2:])


def encoder_layer(cells: int, training: bool) -> Callable[[], object]:
    """Return a function that runs one encoder layer of R50 on one image, with the backward pass in training."""
    layer = EncoderLayer(channels=256, heads=8, feed_forward=2048, dropout=0.1).train(training)
    x, position = torch.randn(1, cells, 256), torch.randn(1, cells, 256)

    def run() -> None:
        with torch.set_grad_enabled(training):
            out = layer(x, position, None)
            if training:
                out.sum().backward()

    return run


def peak_memory(cells: int, training: bool) -> int:
    """Return the peak memory of such a layer in bytes."""
    with Contender(torch.device("cpu"), encoder_layer, cells, training) as layer:
        for _ in range(2):
            layer.seconds()
        return layer.peak_memory() or 0


def annotation_file(folder: Path, images: int) -> Path:
    """Write COCO annotations with seven boxes per image, and an empty file for every image."""
    for i in range(images):
        (folder / f"{i:012}.jpg").touch()
    boxes = (np.random.default_rng(0).random((images * BOXES_PER_IMAGE, 4)) * [400, 300, 200, 150] + 1).round(2)
    file = folder / "annotations.json"
    with file.open("w") as out:
        out.write('{"images":[')
        out.writelines(
            f'{"," if i else ""}{{"id":{i},"file_name":"{i:012}.jpg","height":480,"width":640}}' for i in range(images)
        )
        out.write('],"annotations":[')
        out.writelines(
            f'{"," if i else ""}{{"id":{i},"image_id":{i // BOXES_PER_IMAGE},"category_id":{i % 80},"bbox":{box},'
            f'"area":100,"iscrowd":0}}'
            for i, box in enumerate(boxes.tolist())
        )
        out.write('],"categories":[' + ",".join(f'{{"id":{i},"name":"class {i}"}}' for i in range(80)) + "]}")
    return file


def reading(images: int) -> dict[str, float]:
    """Measure the seconds to read such a file, the bytes kept per box, and the MiB of private memory of a loading process."""
    with tempfile.TemporaryDirectory() as name:
        file = annotation_file(Path(name), images)
        started = time.perf_counter()
        annotations = read_coco(file, [Path(name)])
        seconds = time.perf_counter() - started
        parts = [part for each in (annotations, annotations.file_names) for part in vars(each).values()]
        kept = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
        context = multiprocessing.get_context("fork")  # as for the workers of a DataLoader on Linux
        answers = context.SimpleQueue()
        process = context.Process(target=_use, args=(annotations, answers))
        process.start()
        process.join()
        grown: list[float] = answers.get()
    return {"seconds": seconds, "bytes per box": kept / len(annotations.labels), "MiB written": grown[1] - grown[0]}


def _use(annotations: Annotations, answers) -> None:
    """Read the first hundred images, then all, and report the private memory after each. Only the difference grows."""
    written = []
    for count in (100, len(annotations)):
        for i in range(count):
            annotations.path(i)
            annotations.boxes[annotations.objects(i)].copy()
            annotations.labels[annotations.objects(i)].copy()
        found = re.search(r"Private_Dirty:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
        written.append(int(found[1]) / 1024)
    answers.put(written)


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} processors, torch {torch.__version__}")
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)

    counts = [1, 3, 7, 20, 50, 100, 200, 300]
    times = [matching(count) for count in counts]
    print("objects per image  matcher ms  rest of the loss ms")
    for count, (matcher, rest) in zip(counts, times, strict=True):
        print(f"{count:17d}  {matcher:10.1f}  {rest:19.1f}")
    left.plot(counts, [matcher for matcher, _ in times], "o-", label="matcher")
    left.plot(counts, [rest for _, rest in times], "o-", label="rest of the loss, with gradients")
    left.set(xlabel="objects per image", ylabel="milliseconds", title="6 layers, 2 images, 300 queries")
    left.legend(loc="upper left")

    sizes = [(480, 640), (800, 1066), (800, 1333), (1200, 1600), (1600, 2132)]
    print("image       cells  prediction MiB  training MiB")
    memory: dict[bool, list[float]] = {False: [], True: []}
    for height, width in sizes:
        cells = -(-height // 32) * -(-width // 32)
        for training in (False, True):
            memory[training].append(peak_memory(cells, training) / 2**20)
        print(f"{height:4d}x{width:<5d} {cells:6d}  {memory[False][-1]:14.0f}  {memory[True][-1]:12.0f}")
    area = [height * width / 1e6 for height, width in sizes]
    middle.plot(area, memory[False], "o-", label="prediction")
    middle.plot(area, memory[True], "o-", label="training, on a CPU")
    middle.set(xlabel="megapixels", ylabel="MiB at most", title="one encoder layer, one image")
    middle.legend(loc="upper left")

    print("images     seconds  microseconds per image  bytes per box  MiB written by a loading process")
    seconds = []
    for images in arguments.images:
        found = reading(images)
        seconds.append(found["seconds"])
        print(
            f"{images:9d}  {found['seconds']:7.1f}  {found['seconds'] / images * 1e6:22.0f}  "
            f"{found['bytes per box']:13.1f}  {found['MiB written']:32.1f}"
        )
    right.loglog(arguments.images, seconds, "o-")
    right.set(xlabel="images, 7 boxes each", ylabel="seconds", title="opening an annotation file")
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
