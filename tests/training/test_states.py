"""States are read without running anything, also those of version 0.1.0."""

import json
import os
import pickle
import random
import re
import shutil
import struct

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from conditional_detr.config import Settings
from conditional_detr.errors import InputError
from conditional_detr.runs import RunFolder
from conditional_detr.training import starting
from conditional_detr.training.optimizer import build_optimizer
from conditional_detr.training.state_files import write_manifest
from conditional_detr.training.states import Progress, Terms, Trained, load_state, save_state
from tests.checkpoints.attacks import ATTACKS, script
from tests.cli.test_commands import cdetr, refused
from tests.training.test_loop import changed, metrics

NEW = ["model.safetensors", "optimizer.safetensors", "averaged.safetensors", "random_states_0.safetensors"]
JSON = ["progress.json", "shape.json"]
ABOUT = ["config.yaml", "data.safetensors"]
OLD = [
    "optimizer.bin",
    "custom_checkpoint_0.pkl",
    "custom_checkpoint_1.pkl",
    "random_states_0.pkl",
    "model.safetensors",
]


@pytest.fixture(scope="module")
def stopped(shapes_root, tmp_path_factory):
    """A run of two steps, with averaged weights."""
    from conditional_detr.config import load_settings

    output = tmp_path_factory.mktemp("runs")
    settings = load_settings(
        "conditional-detr_tiny_shapes",
        [f"data.root={shapes_root}", f"train.output={output}", "train.name=run", "train.max_steps=2"],
    )
    changes = {"batch_size": 4, "base_batch_size": 4, "ema_decay": 0.9, "log_every": 1, "query_groups": 1}
    return starting.train(changed(settings, train=changes, model={"dropout": 0.1}, data={"workers": 0})).run.path


def as_0_1(state) -> None:
    """Make the files of a state those that accelerate wrote for version 0.1.0."""
    optimizer, progress = load_file(state / "optimizer.safetensors"), json.loads((state / "progress.json").read_text())
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in optimizer.items():
        states.setdefault(int(name.partition(".")[0]), {})[name.partition(".")[2]] = value
    torch.save({"state": states, "param_groups": [{"lr": 1e-4, "params": [0]}]}, state / "optimizer.bin")
    torch.save(progress, state / "custom_checkpoint_0.pkl")
    torch.save(load_file(state / "averaged.safetensors"), state / "custom_checkpoint_1.pkl")
    numbers = {
        "step": 0,
        "random_state": random.getstate(),
        "numpy_random_seed": np.random.get_state(),
        "torch_manual_seed": load_file(state / "random_states_0.safetensors")["cpu"],
        "torch_cuda_manual_seed": [torch.zeros(16, dtype=torch.uint8)],
    }
    torch.save(numbers, state / "random_states_0.pkl")
    for name in (*NEW[1:], *ABOUT, "progress.json", "manifest.json"):
        (state / name).unlink()
    shape = json.loads((state / "shape.json").read_text())
    del shape["version"]
    (state / "shape.json").write_text(json.dumps(shape))


def sign(state) -> None:
    """Write the checksums of changed files, as someone who changes them on purpose would."""
    if (state / "manifest.json").exists():
        write_manifest(state)


@pytest.fixture
def copy(stopped, tmp_path):
    """The run again, to be changed."""
    return RunFolder(shutil.copytree(stopped, tmp_path / "run"))


class Calls:
    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def bad_contents(good: bytes, mark, folder) -> dict[str, bytes]:
    torch.save(Calls(mark), folder / "x.pth")
    torch.save({"a": torch.ones(3)}, folder / "y.pth")
    save_file({"a": torch.ones(3)}, folder / "other.safetensors")
    return {
        "pickle": pickle.dumps(Calls(mark)),
        "zip": (folder / "x.pth").read_bytes(),
        **{name: make((folder / "y.pth").read_bytes(), script(mark)) for name, make in ATTACKS.items()},
        "script": script(mark),
        "cut": good[: len(good) // 2],
        "empty": b"",
        "list": b"[1]",
        "number": b"7",
        "other keys": b'{"a": 1}',
        "other kinds": b'{"step": "1", "seconds": [], "window": {}, "processes": {}}',
        "deep": b"[" * 10**5,
        "other tensors": (folder / "other.safetensors").read_bytes(),
    }


def check_refused(run: RunFolder, file, mark) -> None:
    with pytest.raises(InputError) as caught:
        starting.resume(run.path)
    text = str(caught.value)
    assert str(file) in text
    assert f"delete {run.newest_state()} to train from the beginning" in text
    assert text.isprintable()
    assert len(text) < 1000
    assert not mark.exists()


@pytest.mark.parametrize("name", [*NEW, *JSON, *ABOUT, "manifest.json", *(f"old {name}" for name in OLD)])
def test_bad_files_of_a_state_are_one_sentence(name, copy, tmp_path):
    mark, state = tmp_path / "mark", copy.newest_state()
    if name.startswith("old "):
        as_0_1(state)
    file = state / name.removeprefix("old ")
    good = file.read_bytes()
    for what, content in bad_contents(good, mark, tmp_path).items():
        if (what, file.name) in (("other keys", "shape.json"), ("empty", "config.yaml")):
            continue  # older states name less; an empty file says that all settings are the defaults
        file.write_bytes(content)
        if file.name != "manifest.json":
            sign(state)
        check_refused(copy, file, mark)
    sign(state)
    file.unlink()
    if file.name != "custom_checkpoint_0.pkl":  # which tells the version
        missing = file
        check_refused(copy, missing, mark)
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)
        check_refused(copy, file, mark)
        file.unlink()
    file.mkdir()
    check_refused(copy, file, mark)
    file.rmdir()
    file.write_bytes(good)
    sign(state)
    assert starting.resume(copy.path).finished


def test_the_command_refuses_a_state_with_code(copy, tmp_path):
    as_0_1(copy.newest_state())
    (copy.newest_state() / "custom_checkpoint_0.pkl").write_bytes(pickle.dumps(Calls(tmp_path / "mark")))
    refused(cdetr("train", "--resume", copy.path), r"custom_checkpoint_0\.pkl wants to call (posix|nt)\.system")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("progress.json", {"step": -1}),
        ("progress.json", {"step": True}),
        ("progress.json", {"step": 10**400}),
        ("progress.json", {"seconds": float("nan")}),
        ("progress.json", {"window": [[1.0]]}),
        ("progress.json", {"window": [["1"] * 7]}),
        ("progress.json", {"window": [[10**400] * 7]}),
        ("shape.json", {"processes": [1]}),
        ("random_states_0.safetensors", {"cpu": torch.zeros(5056, dtype=torch.uint8)}),
        ("random_states_0.safetensors", {"cpu": torch.zeros(7)}),
        ("optimizer.safetensors", {"0.step": torch.zeros(3)}),
        ("optimizer.safetensors", {"0.exp_avg": torch.zeros(3)}),
        ("optimizer.safetensors", {"9999.exp_avg": torch.zeros(3)}),
        ("optimizer.safetensors", {"0.betas": torch.zeros(3)}),
        ("averaged.safetensors", {"module.class_head.bias": torch.zeros(99)}),
        ("model.safetensors", {"class_head.bias": torch.zeros(3, dtype=torch.int64)}),
        ("model.safetensors", {"more": torch.zeros(3)}),
        ("data.safetensors", {"train": torch.zeros(3)}),
        ("data.safetensors", {"train": torch.zeros(48, 3)}),
        ("data.safetensors", {"categories": torch.zeros((), dtype=torch.int64)}),
    ],
)
def test_wrong_values_in_a_state(name, change, copy, tmp_path):
    file = copy.newest_state() / name
    if file.suffix == ".json":
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    else:
        save_file(load_file(file) | change, file)
    sign(copy.newest_state())
    check_refused(copy, file, tmp_path / "mark")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="the system has no endless file")
def test_links_to_endless_files_are_no_files(copy, tmp_path):
    for name in (*NEW, *JSON, *ABOUT, "manifest.json"):
        file = copy.newest_state() / name
        good = file.read_bytes()
        file.unlink()
        file.symlink_to("/dev/zero")
        check_refused(copy, file, tmp_path / "mark")
        file.unlink()
        file.write_bytes(good)


def test_states_of_0_1_resume_as_new_ones_do(copy, tmp_path):
    """Also where its random numbers of numpy can't be read, which nothing draws from."""
    old = RunFolder(shutil.copytree(copy.path, tmp_path / "old"))
    as_0_1(old.newest_state())
    for run in (copy, old):
        run.config.write_text(run.config.read_text().replace("max_steps: 2", "max_steps: 4"))
        assert starting.resume(run.path).step == 4
    assert metrics(copy) == metrics(old)
    assert {path.name for path in old.newest_state().iterdir()} == {*NEW, *JSON, *ABOUT, "manifest.json"}
    for name in NEW:
        a, b = load_file(copy.newest_state() / name), load_file(old.newest_state() / name)
        assert set(a) == set(b)
        assert all(torch.equal(a[key], b[key]) for key in a), name


def test_a_state_begins_empty_and_follows_no_link(tmp_path):
    """A run folder from elsewhere can have links to folders that are not its own."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    run = RunFolder(tmp_path / "run")
    run.states.mkdir(parents=True)
    run.partial_state().symlink_to(elsewhere)
    for step in (3, 5):
        (run.states / f"step-{step}").symlink_to(elsewhere)
    run.begin_state()
    assert not run.partial_state().is_symlink()
    (run.partial_state() / "left").write_text("by a kill")
    run.begin_state()
    assert list(run.partial_state().iterdir()) == []
    run.keep_state(5)
    assert [path.name for path in run.states.iterdir()] == ["step-5"]
    assert (elsewhere / "mine").read_text() == "mine"
    (run.states / "step-²").mkdir()  # a digit, and no number
    assert run.newest_state().name == "step-5"


@pytest.fixture
def trained(tiny_model, quick_run):
    """Parts of a run in which every parameter has moments, and the scaler of float16 its own numbers."""
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**11, growth_interval=3)
    optimizer = build_optimizer(tiny_model, quick_run.train)
    for parameter in tiny_model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    return Trained(accelerator=accelerator, model=tiny_model, optimizer=optimizer, averaged=None, progress=Progress())


def terms() -> Terms:
    data = {"categories": torch.zeros(3, dtype=torch.int64), "train": torch.zeros(2, 3, dtype=torch.int64)}
    return Terms({"processes": 1}, Settings(), data)


def test_the_scale_of_float16_is_kept(trained, tmp_path):
    run = RunFolder(tmp_path)
    trained.progress.step = 1
    trained.progress.window = [[1.5, 0.1, 0.2, 0.3, float("inf"), 0.01, 0.0]]  # a step that overflowed
    save_state(trained, run, terms)
    file = run.newest_state() / "scaler.json"
    trained.accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=3)
    load_state(trained, run.newest_state())
    assert trained.accelerator.scaler.get_scale() == 2.0**11
    assert trained.progress.window[0][4] == float("inf")
    good = json.loads(file.read_text())
    for change in (
        {"scale": "1"},
        {"scale": float("nan")},
        {"scale": -1},
        {"_growth_tracker": 0.5},
        {"growth_factor": None},
    ):
        file.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=r"scaler\.json does not fit the run"):
            load_state(trained, run.newest_state())
    file.write_text("{}")
    with pytest.raises(InputError, match=r"scaler\.json does not fit the run"):
        load_state(trained, run.newest_state())
    file.unlink()
    with pytest.raises(InputError, match=r"scaler\.json does not fit the run \(it is missing\)"):
        load_state(trained, run.newest_state())


def test_missing_moments_and_random_numbers_of_another_device_are_told(trained, tmp_path, caplog):
    run = RunFolder(tmp_path)
    save_state(trained, run, terms)
    optimizer = run.newest_state() / "optimizer.safetensors"
    save_file({name: value for name, value in load_file(optimizer).items() if not name.startswith("0.")}, optimizer)
    drawn = run.newest_state() / "random_states_0.safetensors"
    save_file(load_file(drawn) | {"accelerator": torch.zeros(16, dtype=torch.uint8)}, drawn)
    load_state(trained, run.newest_state())
    assert re.search(r"optimizer\.safetensors has no moments of 1 of \d+ parameters", caplog.text)
    assert "is of an accelerator and this is cpu: dropout draws other random numbers" in caplog.text


def test_a_safetensors_header_of_a_state_can_not_claim_more_than_the_file(trained, tmp_path):
    run = RunFolder(tmp_path)
    save_state(trained, run, terms)
    header = b'{"cpu":{"dtype":"U8","shape":[1000000000000],"data_offsets":[0,1000000000000]}}'
    file = run.newest_state() / "random_states_0.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(InputError, match=r"random_states_0\.safetensors can't be read"):
        load_state(trained, run.newest_state())
