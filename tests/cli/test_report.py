"""``cdetr evaluate --report`` as a user runs it."""

import json
import re
import shutil

import pytest

from conditional_detr import Detector
from conditional_detr.checkpoints.conversion import convert
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.config import load_settings
from conditional_detr.data.shapes import SHAPES
from tests.checkpoints.models import randomized, save_checkpoint, small
from tests.cli.test_commands import cdetr, refused


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    save_checkpoint(randomized(load_settings("conditional-detr_tiny_shapes").model.resolved()), folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory, shapes_root):
    """Validation data that the tests may change."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    shutil.copytree(shapes_root, root)
    return root


def annotate_what_is_seen(model, data) -> None:
    """Make every annotation the most confident detection in the first image."""
    file = data / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    found = Detector.from_pretrained(model).predict(data / "val2017" / content["images"][0]["file_name"], 0.0)[0]
    x0, y0, x1, y1 = found.box
    for annotation in content["annotations"]:
        annotation.update(bbox=[x0, y0, x1 - x0, y1 - y0], category_id=found.label)
    file.write_text(json.dumps(content))


def test_results_never_replace_something_else(model, data, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model.pth").write_bytes(b"weights")
    report = tmp_path / "report"
    files = {path: path.read_bytes() for path in (tmp_path / "model.pth", data / "val2017" / "000001.png")}
    for source, out, sentence in (
        (tmp_path / "model.pth", tmp_path / "model.pth", "would be replaced"),
        (tmp_path / "model", tmp_path / "model" / "config.json", "is not a file of COCO results"),
        (tmp_path / "model", report / "report.json", "is in the folder of the report"),
        (tmp_path / "model", data / "val2017" / "000001.png", "is not a file of COCO results"),
    ):
        arguments = ("evaluate", source, f"data.root={data}", "--save-predictions", out, "--report", report)
        refused(cdetr(*arguments), sentence)
    assert all(path.read_bytes() == content for path, content in files.items())
    out = tmp_path / "results.json"
    for _ in range(2):  # results may replace results
        assert cdetr("evaluate", model, f"data.root={data}", "--save-predictions", out).returncode == 0


def test_more_categories_than_a_report_holds(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr("conditional_detr.evaluation.report.matching.MOST_CATEGORIES", 2)
    result = cdetr("evaluate", model, f"data.root={data}", "--report", tmp_path / "report")
    refused(result, "has 3 categories, and a report is for up to 2")


def test_report_thresholds_and_prediction(model, data, tmp_path):
    annotate_what_is_seen(model, data)
    result = cdetr("evaluate", model, f"data.root={data}", "--report", tmp_path / "report", "--json")
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["metrics"]["AP50"] == pytest.approx(metrics["AP50"], abs=1e-6)
    assert metrics["AP50"] > 0
    assert f"report written to {tmp_path / 'report' / 'index.html'}" in result.stderr
    assert "best thresholds written to" in result.stderr
    thresholds = open_checkpoint(model).record.thresholds
    assert thresholds is not None
    assert thresholds.overall == pytest.approx(report["best"]["threshold"], abs=1e-6)

    predicted = cdetr("predict", model, data / "val2017", "--threshold", "auto", "--json")
    assert predicted.returncode == 0, predicted.stderr
    kept = json.loads(predicted.stdout)
    least = dict(zip(SHAPES.ids, thresholds.of_rows(), strict=True))
    assert kept["annotations"]
    assert all(each["score"] >= least[each["category_id"]] for each in kept["annotations"])

    (tmp_path / "report" / "index.html").write_text("mine")
    before = (tmp_path / "report" / "report.json").read_bytes()
    refused(
        cdetr("evaluate", model, f"data.root={data}", "--report", tmp_path / "report"),
        "index.html was not written by a report, or was changed since",
    )
    assert (tmp_path / "report" / "report.json").read_bytes() == before


def test_what_can_not_keep_thresholds_is_told(model, data, tmp_path):
    convert(randomized(small()), tmp_path / "x.pth", "official")
    annotate_what_is_seen(tmp_path / "x.pth", data)
    result = cdetr("evaluate", tmp_path / "x.pth", f"data.root={data}", "--report", tmp_path / "a")
    assert result.returncode == 0, result.stderr
    assert re.search("the best thresholds are in .* only: the model is not in a folder", result.stderr)
    annotate_what_is_seen(model, data)
    before = (model / "config.json").read_bytes()
    result = cdetr("evaluate", model, f"data.root={data}", "data.eval_short_side=64", "--report", tmp_path / "b")
    assert "only: the images had another size than the model's record says" in result.stderr
    assert (model / "config.json").read_bytes() == before


def test_data_without_annotations(model, shapes_root, tmp_path):
    root = tmp_path / "shapes"
    shutil.copytree(shapes_root, root)
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    result = cdetr("evaluate", model, f"data.root={root}", "--report", tmp_path / "report")
    assert result.returncode == 0, result.stderr
    assert "there are no best thresholds" in result.stderr
    assert "no annotated objects" in (tmp_path / "report" / "index.html").read_text()
