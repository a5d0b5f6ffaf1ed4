"""Runs learn, resume without a difference, stop on Ctrl-C, and report the cause of a NaN."""

import itertools
import json
import os
import re
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from conditional_detr import Detector
from conditional_detr.data import transforms
from conditional_detr.data.shapes import SHAPES
from conditional_detr.errors import InputError, NonFiniteError
from conditional_detr.runs import RunFolder, open_run, read_metrics
from conditional_detr.training import setup, starting
from conditional_detr.training.report import Reporter
from tests.checkpoints.models import load_checkpoint

CHANGING = {"seconds", "images_per_second", "data_wait"}


def changed(settings, **sections):
    """Return the settings with fields replaced. sections: ``section={field: value}``."""
    updates = {name: getattr(settings, name).model_copy(update=fields) for name, fields in sections.items()}
    return settings.model_copy(update=updates)


def metrics(run: RunFolder):
    """Return the metrics of a run, without times."""
    return [{k: v for k, v in record.items() if k not in CHANGING} for record in read_metrics(run.metrics)]


def warnings_in(caplog) -> list[str]:
    """Return the logged warnings."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and record.name.startswith("conditional_detr")
    ]


class StopsAt(Reporter):
    """Reporter that requests a stop after ``step`` steps, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, record) -> None:
        if record["step"] == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_leaves_everything_it_promises(quick_run, caplog):
    caplog.set_level("INFO")
    summary = starting.train(quick_run)
    run = summary.run
    assert summary.finished
    assert summary.step == 12
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*")}
    assert {"config.yaml", "metrics.jsonl", "plots/curves.png", "plots/predictions.jpg", "state/step-12"} <= names
    assert "plots/augmented.jpg" in names
    for folder in ("model", "model_last"):
        assert {f"{folder}/{n}" for n in ("config.json", "model.safetensors", "preprocessor_config.json")} <= names
    records = read_metrics(run.metrics)
    assert [r["step"] for r in records if r["kind"] == "train"] == [2, 4, 6, 8, 10, 12]
    assert [r["epoch"] for r in records if r["kind"] == "evaluation"] == [1, 2]
    assert any(re.search(r"1 +2 +ellipse", text) for text in caplog.messages)  # the table of categories
    assert warnings_in(caplog) == []
    assert not [name for name in names if "partial" in name]
    assert any(name.startswith("tensorboard/events") for name in names)  # TensorBoard is a development dependency


def test_learns(quick_run):
    """The model overfits sixteen images; a model that can't has a bug."""
    root = quick_run.data.root
    annotations = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    annotations["images"] = annotations["images"][:16]
    annotations["annotations"] = [a for a in annotations["annotations"] if a["image_id"] <= 16]
    file = quick_run.train.output / "sixteen.json"
    file.write_text(json.dumps(annotations))
    images = root / "train2017"
    settings = changed(
        quick_run,
        data={
            **{"train_annotations": file, "train_images": images, "val_annotations": file, "val_images": images},
            "flip": 0.0,
        },
        train={"batch_size": 16, "base_batch_size": 16, "epochs": 150, "warmup_steps": 10, "log_every": 50},
        model={"dropout": 0.0},
        evaluation={"every": 150},
    )
    summary = starting.train(settings)
    losses = [r["loss"] for r in read_metrics(summary.run.metrics) if r["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    assert summary.best["AP50"] > 0.5


def test_same_seed_same_run(quick_run):
    first = starting.train(quick_run)
    second = starting.train(changed(quick_run, train={"name": "again"}, data={"workers": 1}))
    assert metrics(first.run) == metrics(second.run)


@pytest.mark.parametrize("step", [3, 8])
@pytest.mark.parametrize("extras", [{}, {"ema_decay": 0.9, "query_groups": 2}])
def test_interrupted_and_resumed_is_the_same_run(quick_run, step, extras):
    settings = changed(quick_run, train=extras)
    whole = starting.train(settings)
    stopped = starting.train(changed(settings, train={"name": "stopped"}), StopsAt(step))
    assert not stopped.finished
    assert step <= stopped.step < 12
    resumed = starting.resume(stopped.run.path)
    assert resumed.finished
    assert metrics(resumed.run) == metrics(whole.run)
    a, b = (load_checkpoint(each.run.last_model).model.state_dict() for each in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_resume_evaluates_what_a_kill_left_unevaluated(quick_run):
    whole = starting.train(quick_run)
    killed = starting.train(changed(quick_run, train={"name": "killed"})).run
    lines = killed.metrics.read_text().splitlines()
    assert json.loads(lines[-1])["kind"] == "evaluation"
    killed.metrics.write_text("\n".join(lines[:-1]) + "\n")
    starting.resume(killed.path)
    assert metrics(killed) == metrics(whole.run)


def test_a_finished_run_resumes_to_nothing(quick_run):
    run = starting.train(quick_run).run
    before = metrics(run)
    assert starting.resume(run.path).finished
    assert metrics(run) == before


def test_a_finished_run_goes_on_for_longer(quick_run):
    run = starting.train(quick_run).run
    longer = starting.resume(run.path, overrides=["train.epochs=4", "train.log_every=3"])
    assert longer.step == 24
    evaluations = [r["epoch"] for r in read_metrics(run.metrics) if r["kind"] == "evaluation"]
    assert evaluations == [1, 2, 3, 4]
    assert [r["step"] for r in read_metrics(run.metrics) if r["kind"] == "train"][6:] == [15, 18, 21, 24]
    assert open_run(run.path)[1].train.epochs == 4
    assert starting.resume(run.path).step == 24


def test_a_refused_change_leaves_the_run_as_it_was(quick_run, tmp_path):
    run = starting.train(changed(quick_run, train={"max_steps": 1})).run
    before = run.config.read_text()
    for override, sentence in (
        ("model.queries=5", r"model\.queries can't change within a run"),
        (f"data.train_images={tmp_path / 'nowhere'}", "nowhere"),
        (f"data.root={other_data(quick_run, tmp_path)}", "48 training images, now there would be 16"),
    ):
        with pytest.raises(InputError, match=sentence):
            starting.resume(run.path, overrides=[override])
        assert run.config.read_text() == before


def other_data(settings, folder):
    """Return a copy of the data with annotations of only sixteen training images."""
    shutil.copytree(settings.data.root, folder / "other")
    file = folder / "other" / "annotations" / "instances_train2017.json"
    annotations = json.loads(file.read_text())
    annotations["images"] = annotations["images"][:16]
    annotations["annotations"] = [a for a in annotations["annotations"] if a["image_id"] <= 16]
    file.write_text(json.dumps(annotations))
    return folder / "other"


def test_a_run_goes_on_where_its_data_moved(quick_run, tmp_path):
    run = starting.train(changed(quick_run, train={"max_steps": 1})).run
    shutil.copytree(quick_run.data.root, tmp_path / "moved")
    assert starting.resume(run.path, overrides=[f"data.root={tmp_path / 'moved'}", "train.max_steps=2"]).step == 2
    assert open_run(run.path)[1].data.root == tmp_path / "moved"


def test_max_steps_ends_and_evaluates_early(quick_run):
    summary = starting.train(changed(quick_run, train={"max_steps": 4}))
    assert summary.step == 4
    assert [r["step"] for r in read_metrics(summary.run.metrics) if r["kind"] == "evaluation"] == [4]


def test_accumulated_passes_are_one_large_batch(quick_run):
    """Losses equal those of one large batch except for rounding, because batch norm is frozen here."""
    settings = changed(quick_run, model={"batch_norm": "frozen", "dropout": 0.0}, train={"max_steps": 6})
    whole = starting.train(settings)
    parts = starting.train(changed(settings, train={"name": "parts", "batch_size": 2, "accumulate": 4}))
    for a, b in zip(metrics(whole.run), metrics(parts.run), strict=True):
        assert a["loss" if a["kind"] == "train" else "AP"] == pytest.approx(
            b["loss" if a["kind"] == "train" else "AP"], rel=1e-3, abs=1e-3
        )


def test_ema_is_evaluated_and_saved(quick_run):
    run = starting.train(changed(quick_run, train={"ema_decay": 0.99})).run
    saved = load_checkpoint(run.last_model).model.state_dict()
    state = load_file(run.newest_state() / "averaged.safetensors")
    assert torch.equal(saved["class_head.weight"], state["module.class_head.weight"])


@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_trains(quick_run, precision):
    summary = starting.train(changed(quick_run, train={"mixed_precision": precision, "max_steps": 4}))
    assert all(r["loss"] < 50 for r in read_metrics(summary.run.metrics) if r["kind"] == "train")


def test_gradient_checkpointing_is_the_same_run(quick_run):
    settings = changed(quick_run, train={"max_steps": 4}, model={"dropout": 0.0})
    plain = starting.train(settings)
    checkpointed = starting.train(changed(settings, train={"name": "c", "gradient_checkpointing": True}))
    for a, b in zip(metrics(plain.run), metrics(checkpointed.run), strict=True):
        assert a["step"] == b["step"]
        assert a.get("loss", 0) == pytest.approx(b.get("loss", 0), rel=1e-4)


def test_other_batch_than_the_presets_is_said(quick_run, caplog):
    starting.train(changed(quick_run, train={"base_batch_size": 16, "max_steps": 1}))
    assert any("8 images per step" in text and "train.scale_lr=true" in text for text in warnings_in(caplog))
    caplog.clear()
    settings = changed(quick_run, train={"base_batch_size": 16, "scale_lr": True, "max_steps": 2, "name": "scaled"})
    run = starting.train(settings).run
    assert warnings_in(caplog) == []
    rates = [r["lr"] for r in read_metrics(run.metrics) if r["kind"] == "train"]
    assert rates == [pytest.approx(quick_run.train.lr / 2)]


def test_warnings_about_the_data_are_shown(quick_run, caplog):
    starting.train(changed(quick_run, model={"queries": 2}, train={"max_steps": 1}))
    assert any("set model.queries=4" in text for text in warnings_in(caplog))


def test_nan_names_the_images_and_saves_a_state(quick_run, monkeypatch):
    original = transforms.augment
    calls = itertools.count(1)

    def poisoned(sample, settings, rng):
        result = original(sample, settings, rng)
        if next(calls) == 16 + 20:  # after those on the page, the fourth image of the third step
            result.boxes[:] = float("nan")
        return result

    monkeypatch.setattr("conditional_detr.data.loading.augment", poisoned)
    with pytest.raises(NonFiniteError, match=r"costs of decoder layer 1 for \S+train2017/\d+\.png; .* in step 3;"):
        starting.train(quick_run)
    saved = torch.load(next((quick_run.train.output / "run" / "state").glob("non-finite*")), weights_only=False)
    assert len(saved["targets"][0]) == 8
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_nan_gradient_names_the_parameter_and_spares_the_weights(quick_run, monkeypatch):
    build = setup.build_model

    def broken(*args):
        model = build(*args)
        model.class_head.bias.register_hook(lambda gradient: gradient * float("nan"))
        return model

    monkeypatch.setattr(setup, "build_model", broken)
    with pytest.raises(NonFiniteError, match=r"gradient of class_head\.bias in step 1"):
        starting.train(quick_run)
    saved = torch.load(next((quick_run.train.output / "run" / "state").glob("non-finite*")), weights_only=False)
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_nan_in_the_weights_names_term_and_layer(quick_run, monkeypatch):
    build = setup.build_model

    def broken(*args):
        model = build(*args)
        with torch.no_grad():
            model.decoder.layers[1].norm3.weight[0] = float("nan")
        return model

    monkeypatch.setattr(setup, "build_model", broken)
    with pytest.raises(NonFiniteError, match=r"class logits and boxes of decoder layer 2 for .*png"):
        starting.train(quick_run)


def test_another_number_of_images_per_step_is_refused(quick_run):
    run = starting.train(changed(quick_run, train={"max_steps": 2})).run
    text = run.config.read_text()
    run.config.write_text(text.replace("batch_size: 8", "batch_size: 4", 1))
    with pytest.raises(InputError, match="8 images per step, now there would be 4"):
        starting.resume(run.path)


def test_an_error_before_the_first_step_leaves_no_folder(quick_run):
    settings = changed(quick_run, data={"val_images": quick_run.data.root / "nowhere"})
    with pytest.raises(InputError):
        starting.train(settings)
    assert not (quick_run.train.output / "run").exists()


def test_detector_opens_the_run(quick_run):
    run = starting.train(changed(quick_run, train={"max_steps": 1})).run
    found = Detector.from_pretrained(run.path).predict(quick_run.data.root / "val2017" / "000001.png", threshold=0.0)
    assert len(found) == 60  # 20 queries x 3 classes
    assert set(found.labels.tolist()) <= {1, 2, 3}


def test_query_groups_leave_a_usual_checkpoint(quick_run):
    run = starting.train(changed(quick_run, train={"query_groups": 3, "max_steps": 2})).run
    opened = load_checkpoint(run.last_model)
    assert opened.architecture.queries == 20
    assert "further_groups" not in " ".join(opened.model.state_dict())
    usual = changed(quick_run, model={"init_from": str(run.last_model)}, train={"name": "on", "max_steps": 1})
    assert starting.train(usual).finished


def test_plain_detr_trains(quick_run):
    """Plain DETR uses its own class loss, a weighted mean over queries instead of objects."""
    settings = changed(quick_run, model={"decoder": "detr", "classification": "softmax"}, train={"max_steps": 2})
    summary = starting.train(settings)
    opened = load_checkpoint(summary.run.last_model)
    assert (opened.architecture.decoder, opened.architecture.classification) == ("detr", "softmax")
    assert opened.model.class_head.out_features == len(SHAPES) + 1
    assert json.loads((summary.run.last_model / "config.json").read_text())["model_type"] == "detr"
    assert summary.best["AP"] >= 0
