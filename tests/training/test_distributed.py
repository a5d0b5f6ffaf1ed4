"""Two processes on the CPU (gloo) give the same results as one process with the whole batch."""

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from conditional_detr.data.loading import TrainingBatches
from conditional_detr.errors import InputError, RunError
from conditional_detr.runs import RunFolder, read_metrics
from conditional_detr.training import starting
from tests.conftest import in_forks
from tests.training.test_interruptions import AtStep
from tests.training.test_loop import changed


def launch(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run ``torchrun`` with two processes. Without mpirun, ``accelerate launch --cpu`` would start only one."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "conditional_detr.cli.main", "train", *map(str, arguments)),
        ],
        check=True,
        timeout=timeout,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def settings(quick_run):
    """Return settings without dropout and batch statistics, so that runs differ only by rounding."""
    return changed(quick_run, model={"batch_norm": "frozen", "dropout": 0.0}, train={"max_steps": 4, "log_every": 1})


def compare(one: RunFolder, two: RunFolder) -> None:
    for a, b in zip(read_metrics(one.metrics), read_metrics(two.metrics), strict=True):
        assert a["step"] == b["step"]
        if a["kind"] == "train":
            # In the first step, gradients differ only by rounding; later steps amplify the differences.
            tolerance = 1e-5 if a["step"] == 1 else 2e-3
            assert a["loss"] == pytest.approx(b["loss"], rel=tolerance)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=tolerance)
        else:
            assert a["AP"] == pytest.approx(b["AP"], abs=5e-3)
            assert a["max_dets"] == b["max_dets"]


def gradients(run: RunFolder) -> torch.Tensor:
    """Return 0.1 times the clipped gradients of a run of one step, which are the first moments of AdamW."""
    state = load_file(run.newest_state() / "optimizer.safetensors")
    return torch.cat([state[key].flatten() for key in sorted(state) if key.endswith(".exp_avg")])


def test_two_processes_have_the_gradients_of_one_large_batch(settings, tmp_path):
    """The difference is below 1e-5 of the norm, because sums are in another order."""
    settings = changed(settings, train={"max_steps": 1})
    one = gradients(starting.train(settings).run)
    config = tmp_path / "two.yaml"
    config.write_text(changed(settings, train={"name": "two", "batch_size": 4}).to_yaml())
    launch(config)
    two = gradients(RunFolder(tmp_path / "two"))
    assert one.norm().item() == pytest.approx(0.1 * settings.train.clip_norm, rel=1e-4)
    assert (one - two).norm() < 1e-5 * one.norm()


def test_two_processes_train_evaluate_stop_and_resume_as_one(settings, tmp_path):
    """Each of the 11 validation images counts once, although their number is odd. Only one summary is printed."""
    one = starting.train(settings)
    config = tmp_path / "two.yaml"
    config.write_text(changed(settings, train={"name": "two", "batch_size": 4, "max_steps": 3}).to_yaml())
    assert launch(config).stdout.count("last model") == 1
    two = RunFolder(tmp_path / "two")
    two.config.write_text(two.config.read_text().replace("max_steps: 3", "max_steps: 4"))
    lines = two.metrics.read_text().splitlines()
    two.metrics.write_text("\n".join(line for line in lines if '"evaluation"' not in line) + "\n")
    launch("--resume", two.path)
    compare(one.run, two)
    with pytest.raises(InputError, match="was trained with 2 processes, now there would be 1"):
        starting.resume(two.path)


def test_a_process_with_only_empty_images_does_not_hang(settings, tmp_path):
    """Only one image has objects, so at least one process has none in each step."""
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
    one = starting.train(settings)
    config = tmp_path / "two.yaml"
    config.write_text(changed(settings, train={"name": "two", "batch_size": 4}).to_yaml())
    launch(config)
    compare(one.run, RunFolder(tmp_path / "two"))


def in_two_processes(action: Callable[[], None], folder: Path) -> list[str]:
    """Run an action in two processes as torchrun starts them, and return the sentences that a user would see, by rank.

    They are forks, because starting Python and torch takes most of the time of a test.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    files = [folder / f"error-{rank}" for rank in range(2)]

    def one(rank: int) -> None:
        files[rank].write_text("")
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, OMP_NUM_THREADS="1")
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            action()
        except (InputError, RunError) as error:
            files[rank].write_text(str(error))

    assert in_forks([partial(one, rank) for rank in range(2)]) == [0, 0]
    return [file.read_text() for file in files]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes are forked")
@pytest.mark.filterwarnings("ignore:Grad strides do not match")  # of torch, for channels-last weights
@pytest.mark.usefixtures("_quick")
def test_an_error_of_one_process_ends_both_with_its_sentence(small_run, tmp_path):
    """Neither waits for the other. What was trained is in a state."""
    settings = changed(small_run, data={"root": shutil.copytree(small_run.data.root, tmp_path / "shapes")})
    settings = changed(settings, train={"batch_size": 2})
    order = TrainingBatches(portrait=None, images=8, batch_size=2, accumulate=1, rank=0, processes=2, seed=42).order
    # An image that the second process needs in the second epoch, and one of both in the first step. It is damaged between.
    step, image = next((2 + row, i) for row in range(2) for i in order(1)[row, 1] if i in order(0)[0])
    file = settings.data.root / "train2017" / f"{image + 1:06d}.png"
    content = file.read_bytes()
    sentences = in_two_processes(
        lambda: starting.train(settings, AtStep(1, lambda: file.write_bytes(b"damaged"))), tmp_path
    )
    assert sentences == [f"{file} is not an image of a known format; replace or remove the file"] * 2
    run = RunFolder(tmp_path / "run")
    assert run.newest_state().name == f"step-{step}"
    file.write_bytes(content)
    locked = run.locked()
    sentences = in_two_processes(lambda: starting.resume(run.path), tmp_path)
    assert sentences[0] == sentences[1]
    assert f"run is in use by process {os.getpid()} on" in sentences[0]
    locked.release()
    assert in_two_processes(lambda: starting.resume(run.path), tmp_path) == ["", ""]
    assert read_metrics(run.metrics)[-1]["step"] == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes are forked")
@pytest.mark.filterwarnings("ignore:Grad strides do not match")  # of torch, for channels-last weights
@pytest.mark.usefixtures("_quick")
def test_the_model_is_gone_before_the_process_group(small_run, tmp_path, monkeypatch):
    """A model that is the last to use the group waits for its threads, which can wait for the model's: both hang."""
    end = Accelerator.end_training

    def end_checked(accelerator):
        assert DistributedDataParallel not in map(type, gc.get_objects())
        end(accelerator)

    monkeypatch.setattr(Accelerator, "end_training", end_checked)
    settings = changed(small_run, train={"batch_size": 2, "max_steps": 1})
    assert in_two_processes(lambda: starting.train(settings), tmp_path) == ["", ""]
