"""Callbacks of users, and the trackers of accelerate."""

import json

import pytest

from conditional_detr import Callback, SettingsError
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.runs import read_metrics
from conditional_detr.training import starting
from tests.training.test_loop import changed


class Recorder(Callback):
    def __init__(self, stop_after: int | None = None) -> None:
        self.lines, self.models, self.summaries, self.stop_after = [], [], [], stop_after

    def on_step(self, record):
        self.lines.append(record)

    def on_evaluation(self, record, model):
        self.lines.append(record)
        open_checkpoint(model)
        return self.stop_after is not None and record["step"] >= self.stop_after

    def on_end(self, summary):
        self.summaries.append(summary)


def test_a_callback_gets_every_line_of_metrics_and_the_result(quick_run):
    recorder = Recorder()
    summary = starting.train(quick_run, callbacks=[recorder])
    assert recorder.lines == read_metrics(summary.run.metrics)
    assert recorder.summaries == [summary]
    assert {each["kind"] for each in recorder.lines} == {"train", "evaluation"}


def test_a_callback_can_end_the_run_which_can_be_resumed(quick_run):
    recorder = Recorder(stop_after=6)
    summary = starting.train(quick_run, callbacks=[recorder])
    assert (summary.finished, summary.step) == (False, 7)
    assert recorder.summaries == [summary]
    assert starting.resume(summary.run.path).step == 12


def test_an_error_of_a_callback_ends_the_run_with_it(quick_run):
    class Broken(Callback):
        def on_step(self, record):
            raise ZeroDivisionError("theirs")

    with pytest.raises(ZeroDivisionError, match="theirs"):
        starting.train(quick_run, callbacks=[Broken()])


def test_a_tracker_without_its_package_is_named(quick_run, monkeypatch):
    monkeypatch.setattr("conditional_detr.training.trackers.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"train.log=aim needs a package: pip install aim"):
        starting.train(changed(quick_run, train={"log": ("aim",)}))


def test_a_tracker_that_can_not_begin_is_told_before_training(quick_run, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")

    def not_logged_in(*_):
        raise RuntimeError("no API key")

    monkeypatch.setattr("accelerate.Accelerator.init_trackers", not_logged_in)
    with pytest.raises(SettingsError, match=r"train.log=\[wandb\] can't begin \(no API key\)"):
        starting.train(changed(quick_run, train={"log": ("wandb",)}))


@pytest.mark.filterwarnings("ignore")  # of wandb
def test_wandb_offline_gets_metrics_settings_pictures_and_the_model(quick_run, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged, artifacts = [], []
    real = wandb.Run.log
    monkeypatch.setattr(
        wandb.Run, "log", lambda run, values, **others: (logged.append(values), real(run, values, **others))
    )
    keep = wandb.Run.log_artifact
    monkeypatch.setattr(wandb.Run, "log_artifact", lambda run, each: (artifacts.append(each.name), keep(run, each))[1])
    summary = starting.train(changed(quick_run, train={"log": ("wandb",)}))
    keys = {key for values in logged for key in values}
    assert {"train/loss", "evaluation/AP", "evaluation/AP of rectangle", "predictions"} <= keys
    assert artifacts == ["run"]
    (folder,) = (summary.run.path / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))


def test_mlflow_files_hold_metrics_and_the_model(quick_run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # else it wants a database
    starting.train(changed(quick_run, train={"log": ("mlflow",)}))
    (run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert "evaluation/AP50" in run.data.metrics
    assert run.data.params["train.batch_size"] == "8"
    assert list((tmp_path / "mlruns").rglob("model.safetensors"))


def test_a_tracker_that_fails_does_not_end_the_run(quick_run, monkeypatch, caplog):
    pytest.importorskip("trackio", reason="trackio is not installed")
    from accelerate.tracking import TrackioTracker

    class Unreachable:
        name, tracker = "trackio", None

        def log(self, values, step):
            raise ConnectionError("no network")

    monkeypatch.setattr(TrackioTracker, "start", lambda self: None)
    monkeypatch.setattr(TrackioTracker, "store_init_configuration", lambda self, values: None)
    monkeypatch.setattr(TrackioTracker, "finish", lambda self: None)
    monkeypatch.setattr(TrackioTracker, "log", Unreachable.log)
    summary = starting.train(changed(quick_run, train={"log": ("trackio",)}))
    assert summary.finished
    assert caplog.text.count("train.log=trackio fails and gets nothing more (no network)") == 1
    assert json.loads(summary.run.metrics.read_text().splitlines()[-1])["kind"] == "evaluation"
