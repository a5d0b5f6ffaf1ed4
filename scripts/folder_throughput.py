"""Compare the speed of predicting a folder of JPEGs with that of the model alone, and measure the memory.

python scripts/folder_throughput.py PRESET [model.key=value ...] [--images 1000] [--distinct 20]

The images have 480x640 pixels, and the network has random weights. Both sides take turns, image by image, so that changes in
the machine's speed affect them equally: the next image of the folder, from file to detections, then the model on prepared
pixels of an image of that size.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

from conditional_detr.allocator import keep_freed_memory
from conditional_detr.benchmark.inputs import Inputs
from conditional_detr.benchmark.presets import preset_checkpoint
from conditional_detr.inference.detector import Detector


def resident() -> float:
    """Return the resident memory of the process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=20, help="number of files, which are repeated")
    arguments = parser.parse_args()
    detector = Detector(preset_checkpoint(arguments.preset, arguments.settings))
    keep_freed_memory()
    detector.optimize()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.jpg" for i in range(arguments.distinct)]
        for file, picture in zip(files, Inputs(arguments.distinct, 800, 1067).pictures(), strict=True):
            picture.save(file, quality=90)
        wanted = [files[i % len(files)] for i in range(arguments.images)]
        height, width = detector.checkpoint.input_size.resized(480, 640)
        pixels = Inputs(1, height, width).images().pixels.to(detector.device)

        folder_seconds = model_seconds = 0.0
        memory: list[float] = []
        stream = detector.stream(wanted)
        for i in range(arguments.images):
            started = time.perf_counter()
            next(stream)
            between = time.perf_counter()
            detector.pipeline.runtime(pixels)
            if i >= 5:  # after the warm-up
                folder_seconds += between - started
                model_seconds += time.perf_counter() - between
            if i in (arguments.images // 10, arguments.images - 1):
                memory.append(resident())
    count = arguments.images - 5
    print(
        f"folder {count / folder_seconds:.2f} images/s, model alone {count / model_seconds:.2f} images/s at {height}x{width}"
    )
    print(f"the folder takes {folder_seconds / model_seconds:.2f} of the model's time")
    print(
        f"resident after {arguments.images // 10} images {memory[0]:.0f} MiB, after {arguments.images} {memory[1]:.0f} MiB"
    )


if __name__ == "__main__":
    main()
