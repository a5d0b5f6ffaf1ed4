"""A run of a second: 2 steps an epoch, 2 epochs, a state and an evaluation after each."""

import shutil
from pathlib import Path

import pytest
import torch

from conditional_detr.config import Settings, load_settings
from conditional_detr.data.shapes import write_shapes
from conditional_detr.runs import RunFolder
from conditional_detr.training import loop, starting


@pytest.fixture(scope="session")
def few_shapes(tmp_path_factory) -> Path:
    """Eight training images and three validation images. Copy it to change it."""
    root = tmp_path_factory.mktemp("few") / "shapes"
    write_shapes(root, {"train": 8, "val": 3}, seed=3)
    return root


def small_settings(root: Path, output: Path) -> Settings:
    sizes = [f"data.{key}=32" for key in ("max_size", "eval_short_side", "eval_max_size")]
    return load_settings(
        "conditional-detr_tiny_shapes",
        [
            f"data.root={root}",
            "data.short_sides=[32]",
            *sizes,
            f"train.output={output}",
            "train.name=run",
            "train.batch_size=4",
            "train.base_batch_size=4",
            "train.epochs=2",
            "train.warmup_steps=2",
            "train.query_groups=1",
            "train.log_every=1",
            "model.dropout=0.1",
            "evaluation.every=1",
            "evaluation.report=false",  # which takes longer than the run
        ],
    )


@pytest.fixture
def small_run(few_shapes, tmp_path) -> Settings:
    return small_settings(few_shapes, tmp_path)


def _draw_little(patch: pytest.MonkeyPatch) -> None:
    """Leave out curves and the page of augmented images, which take longer than a whole small run."""
    patch.setattr(loop, "plot_run", lambda records, file: file.write_text("curves"))
    patch.setattr(starting, "show_augmented", lambda setup, run: None)


@pytest.fixture
def _quick(monkeypatch):
    """Run with few pictures, and on one thread: tensors are too small for more."""
    _draw_little(monkeypatch)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def done(few_shapes, tmp_path_factory) -> RunFolder:
    """The small run, finished and not interrupted, with states of steps 2 and 4. Its data is beside it."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copytree(few_shapes, folder / "shapes")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        _draw_little(patch)
        found = starting.train(small_settings(folder / "shapes", folder)).run
    torch.set_num_threads(threads)
    return found
