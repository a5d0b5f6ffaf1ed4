"""Measure `cdetr batch`: the Ray engine beside the local one, and time and memory against the number of images.

python scripts/batch_throughput.py engines [--images 400] [--rounds 2]
python scripts/batch_throughput.py sizes [--images 1000 10000]
python scripts/batch_throughput.py listing [--images 1000000]

Each command runs in a process of its own, with the model starter:tiny. Images are JPEGs of 160x120 pixels: files of their own, 100
different ones and links to them. The time of a command includes its start. Its rate is measured from the first finished shard to the last
one, so without the start. Memory is the largest resident size of the process of the command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_DISTINCT = 100
_LIST = """
import resource, sys
from conditional_detr.batch.listing import list_images
import conditional_detr.inference.fingerprint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = len(list_images(sys.argv[1:]))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{count} paths take {(after - before) / 1024:.0f} MiB more than the {before / 1024:.0f} MiB of the libraries")
"""


def write_images(folder: Path, count: int) -> Path:
    """Write JPEGs of noise over large areas, and hard links to them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        file = folder / f"{i % 1000:03}" / f"{i:07}.jpg"
        file.parent.mkdir(exist_ok=True)
        if i < _DISTINCT:
            Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120)).save(file)
        else:
            os.link(folder / f"{i % _DISTINCT:03}" / f"{i % _DISTINCT:07}.jpg", file)
    return folder


def batch(photos: Path, out: Path, *options: str) -> tuple[float, float, float]:
    """Run the command. Return its seconds, its images per second after the start, and its largest resident size in MiB."""
    command = [
        sys.executable,
        "-m",
        "conditional_detr",
        "batch",
        "starter:tiny",
        str(photos),
        "--out",
        str(out),
        "--json",
    ]
    started = time.perf_counter()
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    images = json.loads(process.stdout.read())["images"]
    _, status, usage = os.wait4(process.pid, 0)
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    seconds = time.perf_counter() - started
    times = sorted(file.stat().st_mtime for file in (out / "shards").iterdir())
    rate = images * (1 - 1 / len(times)) / (times[-1] - times[0]) if len(times) > 1 else images / seconds
    return seconds, rate, usage.ru_maxrss / 1024


def engines(folder: Path, images: int, rounds: int) -> None:
    """Run both engines in turns, because the speed of a shared machine changes."""
    photos = write_images(folder / "photos", images)
    size = str(max(1, images // 20))
    for i in range(rounds):
        for engine in ("local", "ray"):
            seconds, rate, _ = batch(photos, folder / f"{engine}{i}", "--engine", engine, "--shard-size", size)
            print(f"round {i + 1}, {engine}: {seconds:.1f} s, {rate:.1f} images/s after the start", flush=True)


def sizes(folder: Path, counts: list[int]) -> None:
    for count in counts:
        photos = write_images(folder / f"photos{count}", count)
        seconds, _, memory = batch(photos, folder / f"out{count}")
        print(f"{count} images: {seconds:.1f} s, {count / seconds:.1f} images/s, {memory:.0f} MiB", flush=True)


def listing(folder: Path, count: int) -> None:
    """Measure what the paths of a list take."""
    file = folder / "list.txt"
    with file.open("w") as opened:
        opened.writelines(f"/data/photos/of/a/survey/{i % 1000:03}/{i:012}.jpg\n" for i in range(count))
    subprocess.run([sys.executable, "-c", _LIST, str(file)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["engines", "sizes", "listing"])
    parser.add_argument("--images", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.what == "engines":
            engines(Path(folder), (arguments.images or [400])[0], arguments.rounds)
        elif arguments.what == "sizes":
            sizes(Path(folder), arguments.images or [1000, 10_000])
        else:
            listing(Path(folder), (arguments.images or [1_000_000])[0])


if __name__ == "__main__":
    main()
