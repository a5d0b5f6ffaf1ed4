"""A small model, images of different sizes, and what tests of batches read back."""

import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conditional_detr.config import load_settings
from conditional_detr.inference.detector import Detector
from conditional_detr.record import Categories
from tests.checkpoints.models import randomized, save_checkpoint

COUNT = 9


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    settings = load_settings("conditional-detr_tiny_shapes").model.resolved()
    save_checkpoint(randomized(settings, Categories((7, 0, 90), ("one", "two", "three"))), folder)
    return folder


@pytest.fixture(scope="session")
def detector(model) -> Detector:
    return Detector.from_pretrained(model)


def write_photos(folder: Path, count: int = COUNT) -> Path:
    """Write images of different sizes, in a folder and one below it, so that a batch is padded."""
    rng = np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    for i in range(count):
        place = folder / "more" if i % 3 == 2 else folder
        Image.fromarray(rng.integers(0, 256, (40 + 9 * (i % 5), 60, 3), dtype=np.uint8)).save(place / f"{i:03}.png")
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_photos(tmp_path / "photos")


def files_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.*") if path.is_file())


def rows(out: Path) -> list[dict]:
    """All rows of a batch, in the order of their shards."""
    files = sorted((out / "shards").glob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def tar_of(folder: Path, tar: Path) -> Path:
    """Write a tar as WebDataset has it: each image beside a file with its caption."""
    with tarfile.open(tar, "w") as opened:
        for file in sorted(folder.rglob("*.png")):
            opened.add(file, f"{file.stem}.png")
            caption = tarfile.TarInfo(f"{file.stem}.txt")
            opened.addfile(caption)
    return tar
