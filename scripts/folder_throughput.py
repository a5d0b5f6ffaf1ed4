"""Compare the speed of predicting a folder of JPEGs with that of one image after the other and of the model alone, and measure the memory.

python scripts/folder_throughput.py SOURCE [model.key=value ...] [--runtime NAME] [--images 200] [--rounds 5]

SOURCE is a preset, whose network has random weights, or what ``Detector.from_pretrained`` opens. The images have 480x640 pixels.
In every round the three take turns: ``Detector.stream`` of all images, ``Detector.predict`` of one after the other, and
the model on prepared pixels. The medians of the rounds are printed.
"""

import argparse
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from conditional_detr.allocator import keep_freed_memory
from conditional_detr.benchmark.inputs import Inputs
from conditional_detr.benchmark.presets import preset_checkpoint
from conditional_detr.config import preset_names
from conditional_detr.inference.detector import Detector

DISTINCT = 20  # files, which are repeated


def resident() -> float:
    """Return the resident memory of the process in MiB."""
    found = re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.source in preset_names():
        detector = Detector(preset_checkpoint(arguments.source, arguments.settings))
    else:
        detector = Detector.from_pretrained(arguments.source, runtime=arguments.runtime)
    keep_freed_memory()
    if detector.exported_file is None:
        detector.optimize()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.jpg" for i in range(DISTINCT)]
        for file, picture in zip(files, Inputs(DISTINCT, 800, 1067).pictures(), strict=True):
            picture.save(file, quality=90)
        wanted = [files[i % DISTINCT] for i in range(arguments.images)]
        height, width = detector.record.input_size.resized(480, 640)
        pixels = Inputs(1, height, width).images().pixels.to(detector.device)

        def stream() -> None:
            for _ in detector.stream(wanted):
                pass

        def one_by_one() -> None:
            for file in wanted:
                detector.predict(file)

        def model() -> None:
            for _ in wanted:
                detector.pipeline.runtime(pixels)

        sides: dict[str, Callable[[], None]] = {"stream": stream, "one by one": one_by_one, "model alone": model}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        memory: list[float] = []
        for turn in range(arguments.rounds + 1):
            for name, run in sides.items():
                started = time.perf_counter()
                run()
                if turn:  # the first one is a warm-up
                    rates[name].append(arguments.images / (time.perf_counter() - started))
            memory.append(resident())
    print(f"{detector.runtime}, {torch.get_num_threads()} threads, {height}x{width}")
    for name, found in rates.items():
        print(f"{name}: {median(found):.1f} images/s ({min(found):.1f} to {max(found):.1f})")
    ratios = [a / b for a, b in zip(rates["stream"], rates["one by one"], strict=True)]
    print(f"stream / one by one: {median(ratios):.2f}")
    print(f"resident after the first round {memory[0]:.0f} MiB, after the last {memory[-1]:.0f} MiB")


if __name__ == "__main__":
    main()
