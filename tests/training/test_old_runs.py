"""Run folders of version 0.1.0 open, evaluate, compare and resume; those of a newer version are refused."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from conditional_detr import CheckpointError, Detector, SettingsError, evaluate_detector, read_split
from conditional_detr.data.shapes import write_shapes
from conditional_detr.explain.convergence import read_curve
from conditional_detr.record import VERSION
from conditional_detr.runs import open_run, read_metrics
from conditional_detr.training import starting
from tests.training.test_loop import metrics

RUNS = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("old") / "shapes"
    write_shapes(root, {"train": 24, "val": 6}, seed=5)
    return root


@pytest.fixture(params=["conditional", "detr"])
def run(request, tmp_path, shapes) -> Path:
    return copy_of(request.param, tmp_path, shapes)


def copy_of(name: str, folder: Path, shapes: Path) -> Path:
    """A copy of a frozen run, with the place of its data."""
    run = folder / name
    shutil.copytree(RUNS / name, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["root"] = str(shapes)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def test_settings_are_brought_into_the_present_form(run):
    _, settings = open_run(run)
    assert settings.train.drop_at == 0.75  # was: after 3 of 4 epochs
    assert settings.model.channels == 16


def test_opens_and_evaluates_to_the_same(run):
    _, settings = open_run(run)
    detector = Detector.from_pretrained(run, device="cpu")
    metrics, results = evaluate_detector(detector, read_split(settings.data, "val"), settings.evaluation, 0)
    expected = json.loads((run / "detections.json").read_text())
    assert metrics.values["AP"] == pytest.approx(expected["AP"], abs=1e-6)
    best = sorted(results, key=lambda result: -result["score"])[:5]
    for found, recorded in zip(best, expected["best"], strict=True):
        assert found["score"] == pytest.approx(recorded["score"], abs=1e-5)
        assert found["bbox"] == pytest.approx(recorded["bbox"], abs=1e-2)
        assert found["category_id"] == recorded["category_id"]


def test_compares(run):
    curve = read_curve(run)
    assert curve.planned == 4
    assert len(curve.points) == (3 if run.name == "conditional" else 4)


def test_resumes_as_the_run_that_was_not_interrupted(tmp_path, shapes):
    """Within rounding, which differs between processors."""
    run = copy_of("conditional", tmp_path, shapes)
    expected = [json.loads(line) for line in (run / "metrics-uninterrupted.jsonl").read_text().splitlines()]
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == 7
    summary = starting.resume(run, overrides=["train.max_steps=0"])
    assert (summary.finished, summary.step) == (True, 12)
    resumed = {(r["kind"], r["step"]): r for r in metrics(summary.run)}
    for record in expected:
        if record["kind"] == "train" and record["step"] > 8:
            assert resumed["train", record["step"]]["loss"] == pytest.approx(record["loss"], rel=1e-4)
            assert resumed["train", record["step"]]["lr"] == pytest.approx(record["lr"])


def test_newer_versions_are_refused(tmp_path, shapes):
    run = copy_of("detr", tmp_path, shapes)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({"version": 99, **config}))
    with pytest.raises(SettingsError, match=r"newer conditional-detr \(config version 99"):
        starting.resume(run)
    model = json.loads((run / "model" / "config.json").read_text())
    model["conditional_detr"] = {"version": VERSION + 1}
    (run / "model" / "config.json").write_text(json.dumps(model))
    with pytest.raises(CheckpointError, match="newer conditional-detr"):
        Detector.from_pretrained(run)
