"""A resume tells what changed, refuses what can't go on, and goes on from the older state when the newest is damaged."""

import json
import re
import shutil

import pytest
from PIL import Image

from conditional_detr.config import load_settings
from conditional_detr.errors import InputError
from conditional_detr.runs import RunFolder, read_metrics
from conditional_detr.training import starting
from conditional_detr.training.state_files import write_manifest
from tests.cli.test_commands import cdetr, refused
from tests.training.test_loop import StopsAt, changed, metrics, warnings_in

pytestmark = pytest.mark.usefixtures("_quick")


@pytest.fixture
def run(done, tmp_path) -> RunFolder:
    """The run again, with its own copy of the data."""
    shutil.copytree(done.path.parent, tmp_path / "copy")
    found = RunFolder(tmp_path / "copy" / "run")
    for config in found.path.rglob("config.yaml"):
        config.write_text(config.read_text().replace(str(done.path.parent), str(tmp_path / "copy")))
    for state in found.saved_states():
        write_manifest(state)
    return found


def edit(run: RunFolder, old: str, new: str) -> None:
    text = run.config.read_text()
    assert old in text
    run.config.write_text(text.replace(old, new, 1))


def flip_a_bit(file) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 4
    file.write_bytes(content)


def edit_annotations(run: RunFolder, split: str, change) -> None:
    file = run.path.parent / "shapes" / "annotations" / f"instances_{split}2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_nothing_changed_is_not_told(run, caplog):
    caplog.set_level("INFO")
    starting.resume(run.path)
    assert not [text for text in caplog.messages if "changed since" in text]
    assert warnings_in(caplog) == []


def test_settings_changed_by_hand_are_told(run, caplog):
    caplog.set_level("INFO")
    edit(run, "lr: 0.002\n", "lr: 0.004\n")
    starting.resume(run.path, overrides=["evaluation.every=2"])
    assert "settings changed since step-4 (train.lr: 0.002 -> 0.004, evaluation.every: 1 -> 2)" in caplog.messages


def test_settings_that_can_not_change_are_refused(run):
    edit(run, "flip: 0.5", "flip: 0.25")
    before = run.metrics.read_text()
    sentence = (
        r"run/config\.yaml: data\.flip changed after step-4 was saved \(0\.5 -> 0\.25\), but it can't change within a run; "
        r"set it back, or start a new run: cdetr train "
    )
    refused(cdetr("train", "--resume", run.path), sentence)
    assert run.metrics.read_text() == before
    edit(run, "flip: 0.25", "flip: 0.5")
    edit(run, "batch_size: 4", "batch_size: 2")
    with pytest.raises(InputError, match=r"now there would be 2 \(train\.batch_size: 4 -> 2\); resume with the same"):
        starting.resume(run.path)


def test_a_run_of_another_place_has_the_same_settings(run, tmp_path, caplog):
    caplog.set_level("INFO")
    run.path.parent.rename(tmp_path / "moved")
    starting.resume(tmp_path / "moved" / "run", overrides=[f"data.root={tmp_path / 'moved' / 'shapes'}"])
    assert [text for text in caplog.messages if "changed" in text] == [
        f"settings changed since step-4 (data.root: {tmp_path}/copy/shapes -> {tmp_path}/moved/shapes)"
    ]


def test_changed_data_is_told(run, caplog):
    def move(content):
        for image in (1, 2):
            next(each for each in content["annotations"] if each["image_id"] == image)["bbox"][0] += 1

    edit_annotations(run, "train", move)
    edit_annotations(run, "val", lambda content: content["images"].append({**content["images"][0], "id": 99}))
    Image.new("RGB", (96, 96)).save(run.path.parent / "shapes" / "train2017" / "000005.png")
    starting.resume(run.path)
    told = warnings_in(caplog)
    assert [text for text in told if "are listed twice" not in text] == [
        "the data changed since step-4: 2 of 8 training images have other boxes, categories or crowds, 1 of 8 training images "
        "have another image file, 4 instead of 3 validation images; the run goes on with it as it is now, so its results are "
        "those of no single data set"
    ]


def test_changed_categories_are_refused(run):
    for split in ("train", "val"):
        edit_annotations(run, split, lambda content: content["categories"][1].update(name="oval"))
    with pytest.raises(InputError, match="was trained with other categories: oval had another id or name; resume with"):
        starting.resume(run.path)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random_states_0.safetensors"])
def test_a_flipped_bit_is_found_and_the_older_state_taken(name, run, done, caplog):
    flip_a_bit(run.newest_state() / name)
    resumed = starting.resume(run.path)
    assert resumed.step == 4
    [warning] = warnings_in(caplog)
    assert warning == (
        f"{run.states / 'step-4' / name} is damaged: its checksum is not the one in manifest.json; going on from the older "
        f"step-2, so the metrics after it are void"
    )
    assert metrics(run) == metrics(done)
    assert [path.name for path in sorted(run.states.iterdir())] == ["step-2", "step-4"]
    caplog.clear()
    starting.resume(run.path)
    assert warnings_in(caplog) == []


def test_no_state_is_whole(run):
    first, second = run.saved_states()
    flip_a_bit(first / "optimizer.safetensors")
    (second / "data.safetensors").unlink()
    sentence = (
        rf"step-4/optimizer\.safetensors is damaged: its checksum .*, and \S+step-2/data\.safetensors can't be read "
        rf"\(No such file or directory\); copy the run folder again; or delete {run.states} to train from the beginning$"
    )
    refused(cdetr("train", "--resume", run.path), sentence)
    (second / "manifest.json").write_text(json.dumps({"../../config.yaml": ""}))
    refused(cdetr("train", "--resume", run.path), r"manifest\.json is damaged: it has a wrong list of files")


def test_a_state_of_a_newer_version_is_not_passed_over(run):
    shape = run.newest_state() / "shape.json"
    shape.write_text(json.dumps({**json.loads(shape.read_text()), "version": 99}))
    with pytest.raises(InputError, match=r"newer conditional-detr \(state version 99; this one reads up to 2\)"):
        starting.resume(run.path)


def test_metrics_without_a_state_are_told(run, caplog):
    shutil.rmtree(run.states)
    run.metrics.write_text(run.metrics.read_text().splitlines()[0] + "\n")
    starting.resume(run.path, overrides=["train.max_steps=1"])
    assert f"{run.path} has metrics and no state: starting from the beginning, so they are void" in warnings_in(caplog)
    assert [record["step"] for record in read_metrics(run.metrics)] == [1, 1]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epochs=2", "the run is at step 4 (epoch 2), and train.epochs=2 asks for 4: nothing is left to train; "),
        ("train.epochs=1", "the run is at step 4 (epoch 2), and train.epochs=1 asks for 2: nothing is left to train; "),
        (
            "train.max_steps=3",
            "the run is at step 4 (epoch 2), and train.max_steps=3 asks for 3: nothing is left to train; ",
        ),
    ],
)
def test_nothing_left_to_do_is_told(override, sentence, run, caplog):
    caplog.set_level("INFO")
    before = metrics(run)
    assert starting.resume(run.path, overrides=[override]).finished
    [said] = [text for text in caplog.messages if "nothing is left" in text]
    assert said.startswith(sentence)
    limit = "a larger train.max_steps, or 0" if "max_steps" in override else "train.epochs=N, N above 2"
    assert said.endswith(f"to train for longer, resume with {limit}")
    assert metrics(run) == before


def test_a_run_that_is_asked_for_less_than_it_did_ends_with_a_model(small_run):
    stopped = starting.train(changed(small_run, evaluation={"every": 9}), StopsAt(3))
    assert (stopped.finished, stopped.model_epoch) == (False, None)
    ended = starting.resume(stopped.run.path, overrides=["train.epochs=1"])
    assert (ended.finished, ended.step, ended.model_epoch) == (True, stopped.step, stopped.step / 2)


def test_one_command_starts_a_run_and_goes_on_with_it(small_run, done, caplog):
    caplog.set_level("INFO")
    settings = changed(small_run, train={"resume": "auto"})
    assert not starting.train(settings, StopsAt(3)).finished
    summary = starting.train(settings)
    assert summary.finished
    assert metrics(summary.run) == metrics(done)
    assert starting.train(settings).finished
    assert "nothing is left to train" in caplog.text
    assert starting.train(changed(settings, train={"epochs": 3})).step == 6
    written = load_settings(summary.run.config).train
    assert (written.name, written.resume, written.epochs) == ("", "never", 3)
    with pytest.raises(
        InputError, match=r"run began with another train\.seed \(42 -> 7\), which can't change within a run"
    ):
        starting.train(changed(settings, train={"seed": 7}))
    with pytest.raises(InputError, match=re.escape("train: resume=auto finds the run by its name; give train.name")):
        load_settings(small_run.preset, ["train.resume=auto"])


def test_a_run_is_used_by_one_process(small_run):
    """The second is refused in one sentence, and the first does not notice."""

    class Second(StopsAt):
        def step(self, record) -> None:
            if record["step"] == 1:
                result = cdetr("train", "--resume", small_run.train.output / "run")
                refused(result, r"run is in use by process \d+ on \S+; wait until that run ends, or stop it")

    assert starting.train(small_run, Second(0)).finished
