"""``model/`` is the best model where AP says which one that is, and otherwise the newest; it is said which."""

import json
import shutil

import pytest
import torch

from conditional_detr.cli.train import tell
from conditional_detr.explain.convergence import read_curve
from conditional_detr.runs import RunFolder, read_metrics
from conditional_detr.training import run_plots, starting
from tests.checkpoints.models import load_checkpoint
from tests.cli.test_commands import cdetr
from tests.conftest import SHARED, needs_shared
from tests.training.conftest import small_settings
from tests.training.test_interruptions import AtStep
from tests.training.test_loop import StopsAt, changed, metrics, warnings_in

pytestmark = pytest.mark.usefixtures("_quick")


def with_val_objects(settings, folder, change):
    """Return settings with a copy of the data in which ``change`` was applied to the list of validation objects."""
    root = shutil.copytree(settings.data.root, folder / "other")
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    change(content["annotations"])
    file.write_text(json.dumps(content))
    return changed(settings, data={"root": root})


def without_boxes(objects) -> None:
    objects.clear()


def with_dots(objects) -> None:
    """Boxes that no detection has an IoU of one half with."""
    for each in objects:
        each.update(bbox=[1, 1, 0.01, 0.01], area=1e-4)


def weights(run: RunFolder, name: str) -> torch.Tensor:
    return load_checkpoint(run.path / name).model.state_dict()["class_head.weight"]


@pytest.mark.parametrize(
    ("change", "ap", "logged", "said"),
    [
        (
            without_boxes,
            -1,
            "AP can't be measured, and the newest model is kept as the best",
            "AP can't be measured without",
        ),
        (
            with_dots,
            0,
            "AP is 0: the newest model is kept as the best until one finds",
            "AP is 0 in all evaluations: the",
        ),
    ],
)
def test_the_newest_is_kept_while_ap_says_nothing(change, ap, logged, said, small_run, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    summary = starting.train(with_val_objects(small_run, tmp_path, change))
    assert [r["AP"] for r in read_metrics(summary.run.metrics) if r["kind"] == "evaluation"] == [ap, ap]
    assert summary.model_epoch == summary.best["epoch"] == 2
    assert torch.equal(weights(summary.run, "model"), weights(summary.run, "model_last"))
    assert caplog.text.count(logged) == 1
    tell(summary)
    text = capsys.readouterr().out
    assert text.startswith(said)
    assert "the best model is the newest, after epoch 2\n" in text
    assert "best AP" not in text


def test_the_best_is_kept_once_ap_is_above_0(small_run, capsys):
    summary = starting.train(changed(small_run, train={"epochs": 3}))
    scores = [r["AP"] for r in read_metrics(summary.run.metrics) if r["kind"] == "evaluation"]
    assert max(scores) > 0
    assert summary.best["AP"] == max(scores)
    assert summary.model_epoch == scores.index(max(scores)) + 1
    tell(summary)
    assert f"best AP {max(scores):.3f} (AP50 " in capsys.readouterr().out


def test_a_run_without_evaluation_keeps_the_newest(small_run, done, tmp_path, capsys, caplog):
    """It trains as with evaluation, and needs no validation data."""
    caplog.set_level("INFO")
    root = shutil.copytree(small_run.data.root, tmp_path / "other")
    shutil.rmtree(root / "val2017")
    (root / "annotations" / "instances_val2017.json").unlink()
    settings = changed(small_run, data={"val": "none", "root": root})
    after_one = []
    summary = starting.train(
        settings, AtStep(3, lambda: after_one.append(weights(RunFolder(tmp_path / "run"), "model")))
    )
    run = summary.run
    assert (summary.best, summary.model_epoch) == (None, 2)
    assert [r for r in metrics(run) if r["kind"] == "train"] == [r for r in metrics(done) if r["kind"] == "train"]
    assert [(r["step"], r["epoch"]) for r in read_metrics(run.metrics) if r["kind"] == "model"] == [(2, 1), (4, 2)]
    assert torch.equal(weights(run, "model"), weights(done, "model_last"))
    assert not torch.equal(weights(run, "model"), after_one[0])
    assert "without evaluation (data.val=none), so the newest model is kept" in caplog.text
    assert warnings_in(caplog) == []
    tell(summary)
    text = capsys.readouterr().out
    assert text.startswith("there is no evaluation: the best model is the newest, after epoch 2\n")
    assert "predictions.jpg" not in text
    assert read_curve(run.path).best is None


def test_a_run_without_evaluation_goes_on(small_run, tmp_path):
    settings = changed(small_run, data={"val": "none"})
    whole = starting.train(changed(settings, train={"name": "whole"}))
    stopped = starting.train(settings, StopsAt(2))
    assert not stopped.finished
    resumed = starting.resume(stopped.run.path)
    assert metrics(resumed.run) == metrics(whole.run)
    assert starting.resume(stopped.run.path).model_epoch == 2
    assert metrics(resumed.run) == metrics(whole.run)


def test_a_void_evaluation_still_names_its_model(small_run):
    """After a resume from an older state, ``model/`` is that of an evaluation that is void, until a better one."""
    summary = starting.train(small_run)
    run, best = summary.run, summary.best
    shutil.rmtree(run.newest_state())
    again = starting.resume(run.path, overrides=["train.lr=1e-9", "train.max_steps=2"])
    assert again.step == 2
    assert (again.best["AP"], again.model_epoch) == (best["AP"], best["epoch"])


def test_what_can_not_be_measured_is_not_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(run_plots, "plot_curves", lambda *arguments: drawn.append(arguments))
    records = [{"kind": "evaluation", "epoch": i, "AP": ap, "AP50": ap} for i, ap in enumerate((-1.0, 0.0, 0.25))]
    run_plots.plot_run(records, tmp_path / "x.png")
    assert drawn[0][1] == [(1, 0.0, 0.0), (2, 0.25, 0.25)]


def test_what_can_not_be_measured_is_not_compared(small_run, tmp_path):
    run = starting.train(with_val_objects(small_run, tmp_path, without_boxes)).run
    assert read_curve(run.path).points == ()
    result = cdetr("compare", run.path, "--out", tmp_path / "x.png")
    assert result.returncode == 0, result.stderr
    assert "-1" not in result.stdout.replace(str(tmp_path), "")


@needs_shared("cases/val-without-boxes")
def test_the_case_of_a_user(tmp_path):
    settings = small_settings(SHARED / "cases" / "val-without-boxes", tmp_path)
    summary = starting.train(changed(settings, train={"batch_size": 2}))
    assert summary.model_epoch == 2
    assert torch.equal(weights(summary.run, "model"), weights(summary.run, "model_last"))
