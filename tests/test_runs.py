"""The run folder survives a kill at any moment."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from conditional_detr.config import load_settings, setting_keys
from conditional_detr.config.reading import CHANGEABLE
from conditional_detr.errors import InputError, RunError
from conditional_detr.runs import RunFolder, begun_run, best_evaluation, create_run, open_run, read_metrics


@pytest.fixture
def settings(tmp_path):
    return load_settings("conditional-detr_tiny_shapes", [f"train.output={tmp_path}"])


def named(settings, name):
    return settings.model_copy(update={"train": settings.train.model_copy(update={"name": name})})


def test_names_are_never_taken_twice(settings):
    names = [create_run(settings).path.name for _ in range(3)]
    assert names == [settings.preset, f"{settings.preset}-2", f"{settings.preset}-3"]
    create_run(named(settings, "mine"))
    with pytest.raises(InputError, match=r"mine exists; give another train\.name, or resume that run"):
        create_run(named(settings, "mine"))


def test_what_a_kill_left_before_the_config_is_taken_over(settings, tmp_path):
    left = tmp_path / "left"
    (left / "plots").mkdir(parents=True)
    for name in (".lock", ".config.yaml.partial"):
        (left / name).write_text("cut sh")
    with pytest.raises(InputError, match="its run was killed as it began; give its command again"):
        open_run(left)
    run = create_run(named(settings, "left"))
    assert open_run(run.path)[1] == settings
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not a run")
    with pytest.raises(InputError, match="mine exists"):
        create_run(named(settings, "mine"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file exists"):
        create_run(named(settings, "file"))


def test_a_run_is_locked_from_its_creation(settings, tmp_path):
    run = create_run(settings)
    with pytest.raises(InputError, match=rf"is in use by process {os.getpid()} on \S+; wait until that run ends"):
        RunFolder(run.path).locked()
    run.release()
    RunFolder(run.path).locked().release()


def test_only_the_settings_that_may_change_may_differ_from_those_of_the_run_to_go_on_with(settings):
    mine = named(settings, "mine")
    assert begun_run(mine) is None
    run = create_run(mine)
    longer = mine.model_copy(update={"train": mine.train.model_copy(update={"epochs": 99, "resume": "auto"})})
    assert begun_run(longer) == run
    other = mine.model_copy(update={"data": mine.data.model_copy(update={"flip": 0.25})})
    with pytest.raises(InputError, match=r"mine began with another data\.flip \(0\.5 -> 0\.25\), which can't change"):
        begun_run(other)


def test_a_removed_or_full_folder_is_one_sentence(settings):
    run = create_run(settings)
    with pytest.raises(RunError, match=r"metrics\.jsonl can't be written \(No space left on device\).*no state yet"):  # noqa: SIM117
        with run.writing():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), run.metrics)
    shutil.rmtree(run.path)
    with pytest.raises(RunError, match="was removed or replaced while its run was going on"), run.writing():
        pass
    create_run(named(settings, run.path.name))  # the folder is there again, and is another one
    with pytest.raises(RunError, match="was removed or replaced"), run.writing():
        pass


def test_config_repeats_the_run(settings):
    run = create_run(settings)
    assert open_run(run.path)[1] == settings
    assert load_settings(run.config) == settings
    with pytest.raises(InputError, match="not a run folder"):
        open_run(run.plots)


def test_some_settings_may_change_within_a_run(settings):
    run = create_run(settings)
    before = run.config.read_text()
    overrides = ["train.epochs=20", "train.lr=0.1", "data.root=elsewhere", "evaluation.max_dets=7", "model.channels=64"]
    found = open_run(run.path, overrides)[1]  # the last override repeats the current value
    assert (found.train.epochs, found.train.lr, found.data.root) == (20, 0.1, Path("elsewhere"))
    assert found.evaluation.max_dets == 7
    assert run.config.read_text() == before
    run.write_config(found)
    written = open_run(run.path)[1]
    assert written.data.root == Path.cwd() / "elsewhere"
    assert written.train == found.train


@pytest.mark.parametrize("override", ["model.channels=128", "train.seed=1", "train.batch_size=3", "train.name=x"])
def test_others_may_not(settings, override):
    run = create_run(settings).path
    key = override.partition("=")[0]
    sentence = (
        f"{key} can't change within a run; start a new run: cdetr train {run}/config.yaml {override} "
        f"(model.init_from={run} keeps the weights that fit)"
    )
    with pytest.raises(InputError) as caught:
        open_run(run, ["train.epochs=20", override])
    assert str(caught.value) == sentence
    with pytest.raises(InputError, match=r"did you mean 'train\.epochs'"):
        open_run(run, ["train.epoch=20"])


def test_what_may_change_is_a_setting():
    assert set(CHANGEABLE) <= set(setting_keys())
    assert {key for key in setting_keys() if key.startswith("evaluation.")} <= set(CHANGEABLE)


def train(step, loss=1.0):
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": loss}


def test_lines_after_the_state_of_a_resume_are_void(tmp_path):
    run = RunFolder(tmp_path)
    for record in (train(10), train(20), {"kind": "evaluation", "step": 20, "AP": 0.5, "AP50": 0.6, "epoch": 2}):
        run.append(record)
    run.append({"kind": "resume", "step": 10})
    run.append(train(20, 2.0))
    assert read_metrics(run.metrics) == [train(10), train(20, 2.0)]
    assert len(run.metrics.read_text().splitlines()) == 5  # appended, never rewritten


def test_a_line_cut_short_is_skipped_and_ended(tmp_path):
    run = RunFolder(tmp_path)
    run.append(train(10))
    with run.metrics.open("a") as file:
        file.write('{"kind": "train", "st')
    assert read_metrics(run.metrics) == [train(10)]
    run.append(train(20))
    assert read_metrics(run.metrics) == [train(10), train(20)]


def test_void_lines_can_be_read_too(tmp_path):
    run = RunFolder(tmp_path)
    for record in (train(10), train(20), {"kind": "resume", "step": 10}, train(15), {"kind": "resume", "step": 15}):
        run.append(record)
    assert [record["step"] for record in read_metrics(run.metrics)] == [10, 15]
    assert [record["step"] for record in read_metrics(run.metrics, void=True)] == [10, 20, 15]
    run.append({"kind": "resume", "step": 0})
    assert read_metrics(run.metrics, void=True) == []


def test_bytes_that_are_no_lines_are_skipped(tmp_path):
    run = RunFolder(tmp_path)
    run.append(train(10))
    with run.metrics.open("ab") as file:
        file.write(b"\0\0\0\0\n\xff\xfe\n[1]\n7\n")
    run.append(train(20))
    assert read_metrics(run.metrics) == [train(10), train(20)]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.1, 0.4, 0.4, 0.2), 1),  # the earliest of equals
        ((-1.0, -1.0, -1.0), 2),  # the newest while AP can't be measured
        ((0.0, 0.0), 1),  # and while it is 0
        ((-1.0, 0.0), 1),
        ((0.0, 0.1, 0.0, -1.0), 1),
    ],
)
def test_best_evaluation(scores, best):
    records = [{"kind": "evaluation", "step": i, "AP": ap} for i, ap in enumerate(scores)]
    assert best_evaluation([*records, train(9)])["step"] == best
    assert best_evaluation([train(9)]) is None


def save(run: RunFolder, step: int, content: str) -> None:
    run.begin_state()
    (run.partial_state() / "x").write_text(content)
    run.keep_state(step)


def test_the_two_newest_whole_states_are_kept(tmp_path):
    run = RunFolder(tmp_path)
    run.begin_state()
    assert run.newest_state() is None
    for step in (5, 40, 41):
        save(run, step, "")
    assert [path.name for path in run.saved_states()] == ["step-41", "step-40"]
    assert len(list(run.states.iterdir())) == 2
    save(run, 41, "again")
    assert (run.newest_state() / "x").read_text() == "again"


def test_a_damaged_state_is_set_aside_until_the_next_one(tmp_path):
    run = RunFolder(tmp_path)
    for step in (5, 40):
        save(run, step, "")
    run.set_aside(run.newest_state())
    assert run.newest_state().name == "step-5"
    assert (run.states / "damaged-step-40").is_dir()
    save(run, 6, "")
    assert {path.name for path in run.states.iterdir()} == {"step-5", "step-6"}


def test_a_state_is_on_disk_before_the_older_one_goes(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    run.append(train(5))
    save(run, 5, "")
    save(run, 6, "")
    events = []
    names = {os.stat(path).st_ino: path.name for path in (run.path, run.states, run.metrics)}
    monkeypatch.setattr("os.fsync", lambda file: events.append(names.get(os.fstat(file).st_ino, "partial")))
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda *paths: (events.append("rename"), replace(*paths)))
    monkeypatch.setattr("conditional_detr.runs._remove", lambda path: events.append(path.name))
    save(run, 7, "")
    # Files of a state are synced as they are written.
    assert events == ["partial", "metrics.jsonl", "partial", "step-7", "rename", "state", tmp_path.name, "step-5"]
