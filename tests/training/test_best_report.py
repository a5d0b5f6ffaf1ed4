"""The report on the best model, at the end of a run."""

import json
import logging

import pytest

from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.evaluation.report import read_info
from conditional_detr.training import best_report, starting
from tests.training.test_loop import changed


@pytest.fixture
def reported(quick_run):
    return changed(quick_run, evaluation={"report": True}, train={"max_steps": 6})


def test_a_run_ends_with_a_report_and_thresholds(reported):
    run = starting.train(reported).run
    info = read_info(run.report)
    assert (info["step"], info["model"]) == (6, str(run.best_model))
    report = json.loads((run.report / "report.json").read_text())
    assert report["images"] == 11
    assert (run.report / "index.html").is_file()
    thresholds = open_checkpoint(run.best_model).record.thresholds
    best = report["best"]
    assert (thresholds is None) == (best is None)
    if thresholds is not None:
        assert thresholds.overall == pytest.approx(best["threshold"], abs=1e-6)


def test_no_report_where_none_is_wanted(quick_run):
    run = starting.train(changed(quick_run, train={"max_steps": 2})).run
    assert not run.report.exists()


def test_a_resume_writes_the_report_that_is_missing(quick_run, monkeypatch):
    """The best model was made by another process, so it is evaluated again, once."""
    monkeypatch.setattr(
        best_report, "write_report", lambda folder, analysis, record, about: written.append((analysis, about)) or []
    )
    written = []
    run = starting.train(changed(quick_run, train={"max_steps": 6})).run
    assert written == []
    starting.resume(run.path, overrides=["evaluation.report=true"])
    ((analysis, about),) = written
    assert about["step"] == 6
    recorded = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    evaluation = next(each for each in recorded if each["kind"] == "evaluation")
    assert analysis.metrics.values["AP"] == pytest.approx(evaluation["AP"], abs=1e-6)


def test_a_report_that_is_there_is_kept(quick_run, monkeypatch):
    run = starting.train(changed(quick_run, train={"max_steps": 2})).run
    monkeypatch.setattr(best_report, "read_info", lambda folder: {"step": 2})
    monkeypatch.setattr(best_report, "write_report", None)
    starting.resume(run.path, overrides=["evaluation.report=true"])


def test_what_prevents_the_report_does_not_fail_the_run(reported, caplog, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(best_report, "write_report", full)
    with caplog.at_level(logging.WARNING):
        assert starting.train(changed(reported, train={"max_steps": 2})).finished
    assert "no report is written: " in caplog.text
