"""Two processes on the CPU (gloo) compute what one process computes on the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conditional_detr.training import loop
from conditional_detr.training.run_folder import RunFolder, read_metrics
from tests.training.test_loop import changed


def launch(config: Path, timeout: float = 240) -> None:
    """``torchrun`` with two processes; ``accelerate launch --cpu`` starts one, unless it has mpirun."""
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "conditional_detr.cli.main", "train", str(config)),
        ],
        check=True,
        timeout=timeout,
        capture_output=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def settings(quick_run):
    """Plain gradient descent in effect: no dropout, no batch statistics, so that only rounding differs."""
    return changed(quick_run, model={"batch_norm": "frozen", "dropout": 0.0}, train={"max_steps": 4, "log_every": 1})


def compare(one: RunFolder, two: RunFolder) -> None:
    for a, b in zip(read_metrics(one.metrics), read_metrics(two.metrics), strict=True):
        assert a["step"] == b["step"]
        if a["kind"] == "train":
            # The first step's gradients are equal but for rounding; later steps inherit its differences.
            tolerance = 1e-5 if a["step"] == 1 else 2e-3
            assert a["loss"] == pytest.approx(b["loss"], rel=tolerance)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=tolerance)
        else:
            assert a["AP"] == pytest.approx(b["AP"], abs=5e-3)
            assert a["max_dets"] == b["max_dets"]


def test_two_processes_are_one_large_batch(settings, tmp_path):
    """Also over 11 validation images, an odd number: each counts once."""
    one = loop.train(settings)
    config = tmp_path / "two.yaml"
    config.write_text(changed(settings, train={"name": "two", "batch_size": 4}).to_yaml())
    launch(config)
    two = RunFolder(tmp_path / "two")
    compare(one.run, two)
    first = torch.load(one.run.newest_state() / "optimizer.bin", weights_only=True)["state"]
    second = torch.load(two.newest_state() / "optimizer.bin", weights_only=True)["state"]
    assert first.keys() == second.keys()
    # Four steps' mean of the gradients, clipped to a norm of 0.1.
    for key in first:
        torch.testing.assert_close(first[key]["exp_avg"], second[key]["exp_avg"], atol=2e-4, rtol=0)


def test_a_process_with_only_empty_images_does_not_hang(settings, tmp_path):
    """One image with objects, so that in each step one process has none."""
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").symlink_to(settings.data.root / "val2017")
    (root / "train2017").symlink_to(settings.data.root / "train2017")
    for split in ("train", "val"):
        name = f"instances_{split}2017.json"
        content = json.loads((settings.data.root / "annotations" / name).read_text())
        if split == "train":
            content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 1]
        (root / "annotations" / name).write_text(json.dumps(content))
    settings = changed(settings, data={"root": root}, train={"max_steps": 6})
    one = loop.train(settings)
    config = tmp_path / "two.yaml"
    config.write_text(changed(settings, train={"name": "two", "batch_size": 4}).to_yaml())
    launch(config)
    compare(one.run, RunFolder(tmp_path / "two"))
