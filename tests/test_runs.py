"""The run folder survives a kill at any moment."""

import json
from pathlib import Path

import pytest

from conditional_detr.config import load_settings, setting_keys
from conditional_detr.config.reading import CHANGEABLE
from conditional_detr.errors import InputError
from conditional_detr.runs import RunFolder, best_evaluation, create_run, open_run, read_metrics


@pytest.fixture
def settings(tmp_path):
    return load_settings("conditional-detr_tiny_shapes", [f"train.output={tmp_path}"])


def test_names_are_never_taken_twice(settings):
    names = [create_run(settings).path.name for _ in range(3)]
    assert names == [settings.preset, f"{settings.preset}-2", f"{settings.preset}-3"]
    mine = settings.model_copy(update={"train": settings.train.model_copy(update={"name": "mine"})})
    create_run(mine)
    with pytest.raises(InputError, match=r"mine exists; give another train\.name, or resume that run"):
        create_run(mine)


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


def test_best_is_the_earliest_of_equals():
    records = [{"kind": "evaluation", "step": i, "AP": ap} for i, ap in enumerate((0.1, 0.4, 0.4, 0.2))]
    assert best_evaluation([*records, train(9)])["step"] == 1
    assert best_evaluation([train(9)]) is None


def test_only_whole_states_count(tmp_path):
    run = RunFolder(tmp_path)
    run.partial_state().mkdir(parents=True)
    assert run.newest_state() is None
    (run.partial_state() / "x").write_text("5")
    run.keep_state(5)
    run.partial_state().mkdir()
    (run.partial_state() / "x").write_text("40")
    run.keep_state(40)
    assert run.newest_state().name == "step-40"
    assert [path.name for path in run.states.iterdir()] == ["step-40"]
    run.partial_state().mkdir()
    (run.partial_state() / "x").write_text(json.dumps("again"))
    run.keep_state(40)
    assert (run.newest_state() / "x").read_text() == '"again"'
