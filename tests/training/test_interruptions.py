"""Kills, full disks, removed folders, damaged images and signals: one sentence, and nothing trained is lost."""

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from conditional_detr.data import transforms
from conditional_detr.data.loading import STOP_SIGNALS
from conditional_detr.errors import InputError, NonFiniteError, RunError
from conditional_detr.runs import RunFolder
from conditional_detr.training import starting
from conditional_detr.training.report import Reporter
from conditional_detr.training.stopping import stop_requests
from tests.cli.test_commands import cdetr
from tests.conftest import in_fork
from tests.training.test_loop import changed, metrics, warnings_in

pytestmark = pytest.mark.usefixtures("_quick")


class AtStep(Reporter):
    """Reporter that does something after a step."""

    def __init__(self, step: int, action) -> None:
        self.at, self.action = step, action

    def step(self, record) -> None:
        if record["step"] == self.at:
            self.action()


@pytest.fixture
def own_data(small_run, tmp_path):
    """The small run with its own copy of the data."""
    root = shutil.copytree(small_run.data.root, tmp_path / "shapes")
    return changed(small_run, data={"root": root})


def state_names(run: RunFolder) -> list[str]:
    return [path.name for path in run.saved_states()]


def truncate(file: Path) -> None:
    """Cut an image short after its header, which is read before the first step."""
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork is killed")
def test_kill_at_every_change_of_a_file(small_run, done):
    """Kill a run at its first change of a file or folder, start it again, kill it at the fifth, and so on until it ends.

    Changes are opening to write, renaming, making and removing.
    """
    train = {"name": "killed", "resume": "auto", "save_every": 1}
    settings = changed(small_run, train=train, evaluation={"report": True})
    folder = RunFolder(small_run.train.output / "killed")

    def run_until(change: int) -> None:
        left = itertools.count(change - 1, -1)

        def watch(event: str, arguments: tuple) -> None:
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
                if str(folder.path) in str(arguments[0]) and next(left) == 0:
                    os._exit(9)

        sys.addaudithook(watch)
        starting.train(settings)

    kills = 0
    for change in itertools.count(1, 4):
        code = in_fork(lambda change=change: run_until(change))
        if code == 0:
            break
        assert code == 9
        kills += 1
    assert kills > 10
    assert metrics(folder) == metrics(done)
    assert not list(folder.states.glob("partial"))


def test_a_disk_that_takes_no_state_ends_the_run_and_spares_the_older_state(small_run, done, monkeypatch):
    run = RunFolder(small_run.train.output / "run")
    replace = os.replace

    def full(source, target):
        if str(target).endswith("partial/optimizer.safetensors") and state_names(run):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        replace(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError) as caught:
        starting.train(small_run)
    assert str(caught.value) == (
        f"{run.states / 'partial' / 'optimizer.safetensors'} can't be written (Disk quota exceeded); the run ends, and its "
        f"newest state, step-2, is complete: make the disk writable and free some space, then resume"
    )
    assert state_names(run) == ["step-2"]
    monkeypatch.setattr("os.replace", replace)
    assert metrics(starting.resume(run.path).run) == metrics(done)


@pytest.mark.parametrize("what", ["metrics", "model", "board"])
def test_other_files_that_can_not_be_written(what, small_run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = {
        "metrics": "conditional_detr.runs.RunFolder.append",
        "model": "conditional_detr.checkpoints.formats.huggingface.write",
        "board": "conditional_detr.training.report.TensorBoard.write",
    }[what]
    monkeypatch.setattr(target, full)
    with pytest.raises(RunError, match=r"run can't be written \(No space left on device\); the run ends"):
        starting.train(small_run)


def test_a_removed_run_folder_is_one_sentence_and_stays_removed(small_run):
    folder = small_run.train.output / "run"
    with pytest.raises(RunError, match="run was removed or replaced while its run was going on; start the run again"):
        starting.train(small_run, AtStep(3, lambda: shutil.rmtree(folder)))
    assert not folder.exists()


@pytest.mark.parametrize(("workers", "step"), [(0, 3), (1, 1)])  # a loading process is up to three batches ahead
def test_images_that_vanish_end_the_run_with_a_state(workers, step, own_data, done, caplog):
    caplog.set_level("INFO")
    images = own_data.data.root / "train2017"
    hidden = images.with_name("hidden")
    with pytest.raises(InputError, match=r"train2017/\d+\.png"):
        starting.train(changed(own_data, data={"workers": workers}), AtStep(step, lambda: images.rename(hidden)))
    hidden.rename(images)
    run = RunFolder(own_data.train.output / "run")
    saved = int(state_names(run)[0].removeprefix("step-"))
    assert step <= saved < 4
    assert f"step {saved} is saved; resume once the cause is mended" in caplog.messages
    assert metrics(starting.resume(run.path).run) == metrics(done)


def test_images_that_can_not_be_used_are_left_out_where_asked(own_data, caplog):
    """Each is named once; the next usable one takes its place in training, and in AP it counts as one without detections."""
    for name in ("train2017/000003.png", "train2017/000004.png", "val2017/000002.png"):
        truncate(own_data.data.root / name)
    with pytest.raises(InputError, match=r"00000\d\.png"):
        starting.train(changed(own_data, train={"name": "stopped"}))
    runs = []
    for workers in (0, 1):
        caplog.clear()
        settings = changed(own_data, data={"workers": workers, "on_error": "skip"}, train={"name": f"run{workers}"})
        summary = starting.train(settings)
        runs.append(metrics(summary.run))
        assert summary.left_out == 3
        names = [text.partition(".png")[0][-6:] for text in warnings_in(caplog) if text.startswith("left out: ")]
        assert sorted(names) == ["000002", "000003", "000004"]
    assert runs[0] == runs[1]
    assert runs[0][-2]["left_out"] == 2
    assert [record["left_out"] for record in runs[0] if record["kind"] == "evaluation"] == [1, 1]
    told = cdetr("evaluate", summary.run.path, "--json")
    assert json.loads(told.stdout)["AP"] == pytest.approx(summary.best["AP"], abs=1e-6)
    assert "1 of 3 images were left out; AP counts them as without detections" in told.stderr
    stopped = cdetr("evaluate", summary.run.path, "data.on_error=stop")
    assert stopped.returncode == 2
    assert "000002.png is damaged" in stopped.stderr.splitlines()[-1]


def test_images_left_out_before_a_resume_are_still_counted(own_data):
    for name in ("000003", "000004"):
        truncate(own_data.data.root / "train2017" / f"{name}.png")
    settings = changed(own_data, data={"on_error": "skip"})
    whole = starting.train(changed(settings, train={"name": "whole"}))
    stop = AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    run = starting.train(settings, stop).run
    resumed = starting.resume(run.path)
    assert metrics(run) == metrics(whole.run)
    assert resumed.left_out == whole.left_out == 2


def test_a_run_without_usable_images_ends(own_data):
    settings = changed(own_data, data={"on_error": "skip"})
    damage = list((own_data.data.root / "train2017").iterdir())
    with pytest.raises(
        InputError, match=r"no usable image is left among 8 in a row; check the image folder \S+train2017"
    ):
        starting.train(settings, AtStep(3, lambda: [path.write_bytes(b"x") for path in damage]))
    assert state_names(RunFolder(settings.train.output / "run"))[0] == "step-3"


def test_a_killed_loading_process_ends_the_run_with_a_state(small_run):
    """The kill comes in the middle of a step, and the error at the next batch."""
    settings = changed(small_run, data={"workers": 1}, train={"epochs": 4})
    kill = AtStep(3, lambda: [os.kill(child.pid, signal.SIGKILL) for child in multiprocessing.active_children()])
    with pytest.raises(RunError, match="a loading process was killed, most often because memory ran out"):
        starting.train(settings, kill)
    run = RunFolder(settings.train.output / "run")
    assert state_names(run)[0] == "step-3"
    assert starting.resume(run.path, overrides=["data.workers=0", "train.epochs=2"]).finished


def test_a_full_disk_does_not_hide_nan(small_run, monkeypatch):
    def poisoned(*arguments):
        result = transforms.augment(*arguments)
        result.boxes[:] = float("nan")
        return result

    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 3776 vs 3734")

    monkeypatch.setattr("conditional_detr.data.loading.augment", poisoned)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        NonFiniteError, match=r"costs of .* in step 1; weights, optimizer and batch can't be saved in \S+ \("
    ):
        starting.train(small_run)


def test_a_scheduler_can_ask_a_run_to_save_and_stop(small_run):
    summary = starting.train(small_run, AtStep(1, lambda: os.kill(os.getpid(), signal.SIGUSR1)))
    assert not summary.finished
    assert state_names(summary.run) == [f"step-{summary.step}"]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_ask_a_run_to_stop(number):
    before = signal.getsignal(number)
    with stop_requests() as request:
        os.kill(os.getpid(), number)
        assert request.requested
    assert signal.getsignal(number) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_nohup_goes_on_after_the_terminal_closes():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not request.requested
    finally:
        signal.signal(signal.SIGHUP, previous)
