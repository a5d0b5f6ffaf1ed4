"""Runs of a number of minutes end in time, with the end of their schedule, on machines that change their speed."""

import json
from itertools import pairwise

import pytest

from conditional_detr.config import load_settings
from conditional_detr.errors import InputError
from conditional_detr.runs import read_metrics
from conditional_detr.training import budget, loop, starting
from conditional_detr.training.budget import Plan
from conditional_detr.training.length import LONGEST, RunLength
from conditional_detr.training.validation import Validation
from tests.training.test_loop import StopsAt, changed, metrics

pytestmark = pytest.mark.usefixtures("_quick")


class Machine:
    """A machine with a clock of its own, on which steps and evaluations take known times. step: seconds, by the step."""

    def __init__(self, patch: pytest.MonkeyPatch, step=lambda step: 1.0, evaluation=2.0) -> None:
        self.now, self.seconds, self.evaluation = 1000.0, step, evaluation
        train_step, detect = loop.train_step, Validation.detect

        def timed_step(setup, *arguments):
            self.now += self.seconds(setup.progress.step)
            return train_step(setup, *arguments)

        def timed_detect(*arguments):
            self.now += self.evaluation
            return detect(*arguments)

        patch.setattr(loop, "train_step", timed_step)
        patch.setattr(Validation, "detect", timed_detect)
        for module in (budget, starting):
            patch.setattr(module, "clock", lambda: self.now)


@pytest.fixture
def minute(small_run):
    """A run of one minute: with a second per step and two for an evaluation, sixty steps would be thirty epochs."""
    return changed(small_run, train={"minutes": 1.0, "schedule": "cosine", "cosine_end": 0.0})


def used(machine, settings, **arguments):
    """Return the part of the minutes that a run took, and its metrics."""
    began = machine.now
    summary = starting.train(settings, **arguments)
    assert summary.finished
    return (machine.now - began) / (60 * settings.train.minutes), read_metrics(summary.run.metrics)


def evaluated(records):
    return [record["step"] for record in records if record["kind"] == "evaluation"]


def rates(records):
    return [record["lr"] for record in records if record["kind"] == "train"]


def test_a_steady_machine(minute, monkeypatch, caplog):
    caplog.set_level("INFO")
    part, records = used(Machine(monkeypatch), minute)
    assert 0.9 <= part <= 1.0
    steps = evaluated(records)
    assert 2 <= len(steps) <= 5  # fewer than epochs: they may take 15 % of the time
    assert steps[-1] == records[-2]["step"] > 40
    assert rates(records)[-1] < 0.01 * max(rates(records))
    assert any(text.startswith("train.minutes=1: the run is ") for text in caplog.messages)


@pytest.mark.parametrize(
    "seconds",
    [
        lambda step: 1.0 if step < 25 else 1.8,
        lambda step: 1.0 if step < 25 else 0.5,
        lambda step: 4.0 if step < 3 else 1.0,
        lambda step: 0.3 if step < 12 else 2.0,
    ],
)
def test_a_machine_that_changes_its_speed(minute, monkeypatch, seconds):
    part, records = used(Machine(monkeypatch, seconds), minute)
    assert 0.85 <= part <= 1.05
    assert rates(records)[-1] < 0.05 * max(rates(records))  # the schedule ends early, it is not cut
    after = rates(records)[12:]
    assert all(
        later <= 1.05 * earlier for earlier, later in pairwise(after)
    )  # and does not go back, but for the warm-up


@pytest.mark.parametrize("evaluation", [0.1, 8.0, 20.0])
def test_evaluations_of_any_length(minute, monkeypatch, evaluation, caplog):
    part, records = used(Machine(monkeypatch, evaluation=evaluation), minute)
    assert 0.8 <= part <= 1.3  # beyond only where the single evaluation takes longer than can be guessed
    assert len(evaluated(records)) <= max(2, 12 / evaluation)  # the first one tells what they take


def test_the_time_before_the_first_step_counts(minute, monkeypatch):
    machine = Machine(monkeypatch)
    part, _ = used(machine, minute, started=machine.now - 30)
    assert 0.4 <= part <= 0.5


def test_too_few_minutes_still_leave_a_model(minute, monkeypatch):
    machine = Machine(monkeypatch, lambda step: 100.0)
    _, records = used(machine, minute)
    assert evaluated(records) == [1]


def test_it_is_the_run_of_as_many_steps(minute, monkeypatch):
    """With a schedule that begins alike whatever its length, number by number."""
    settings = changed(minute, train={"schedule": "step", "warmup_steps": 0, "minutes": 0.7})
    Machine(monkeypatch, evaluation=1.375)  # what is guessed at first, so that the first plan is kept
    first = starting.train(settings)
    plan = json.loads((first.run.newest_state() / "progress.json").read_text())["plan"]
    fixed = {"steps": first.step, "minutes": 0.0, "name": "steps"}
    second = starting.train(changed(settings, train=fixed, evaluation={"every": plan["length"]["every"]}))
    assert metrics(second.run) == metrics(first.run)


@pytest.mark.parametrize("step", [4, 21])
def test_interrupted_and_resumed_it_is_the_same_run(minute, monkeypatch, step):
    settings = changed(minute, train={"minutes": 0.7}, data={"mosaic": 0.5, "mosaic_until": 0.5})
    Machine(monkeypatch)
    whole = starting.train(settings)
    stopped = starting.train(changed(settings, train={"name": "stopped"}), StopsAt(step))
    assert not stopped.finished
    resumed = starting.resume(stopped.run.path)
    assert resumed.finished
    if step > budget.MEASURED:  # before, the length is decided after the resume, and by other steps
        assert metrics(resumed.run) == metrics(whole.run)
    assert resumed.step == pytest.approx(whole.step, abs=3)


def test_a_resume_has_the_minutes_that_remain(minute, monkeypatch):
    machine = Machine(monkeypatch)
    stopped = starting.train(minute, StopsAt(30))
    machine.now += 10_000  # nobody trains
    began = machine.now
    resumed = starting.resume(stopped.run.path)
    assert resumed.finished
    assert 15 <= machine.now - began <= 25


def test_a_finished_run_goes_on_with_more_minutes(minute, monkeypatch, caplog):
    caplog.set_level("INFO")
    machine = Machine(monkeypatch)
    run = starting.train(changed(minute, train={"minutes": 0.7})).run
    before = metrics(run)
    assert starting.resume(run.path).finished
    assert metrics(run) == before
    assert "resume with train.minutes=N, N above 0.7" in caplog.text
    began = machine.now
    longer = starting.resume(run.path, overrides=["train.minutes=1.4"])
    assert 0.6 * 60 <= machine.now - began <= 0.7 * 60 + 3
    assert longer.step > before[-1]["step"] + 25


def test_less_than_an_epoch():
    """A data set that is too large for the minutes is evaluated once, at the end."""
    length = RunLength(steps=LONGEST, steps_per_epoch=10_000, every=1)
    plan = Plan(seconds=600, length=length, step_seconds=0.5, model_seconds=60).decided(10, 20.0, every=1)
    assert plan.length.steps == 10 + (570 - 20 - 60) / 0.5
    assert plan.length.models(10) == 1
    assert plan.fits(10, 20.0)
    assert not plan.fits(10, 120.0)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["train.minutes=10", "train.steps=9"], r"^train\.steps=9 and train\.minutes=10 both give the length"),
        (["train.minutes=10", "train.epochs=9"], r"^train\.epochs=9 and train\.minutes=10 both give the length"),
        (
            ["train.minutes=10", "train.max_steps=9"],
            r"train: max_steps=9 would end a run of minutes=10 before its time",
        ),
        (["train.minutes=-1"], r"train\.minutes: .*greater than or equal to 0"),
        (["train.minutes=1e300"], r"train\.minutes: must be at most 10,000,000"),
    ],
)
def test_contradictions_are_refused(overrides, sentence):
    with pytest.raises(InputError, match=sentence):
        load_settings("conditional-detr_tiny_shapes", overrides)


def test_two_lengths_in_a_file_are_refused(tmp_path):
    (tmp_path / "run.yaml").write_text("version: 1\ntrain: {minutes: 5, steps: 9}\n")
    with pytest.raises(InputError, match=r"train: minutes=5 and steps=9 both give the length of the run; set one"):
        load_settings(tmp_path / "run.yaml")
    assert load_settings(tmp_path / "run.yaml", ["train.steps=7"]).train.minutes == 0


@pytest.mark.parametrize(
    "harm", [{"step_seconds": 0}, {"length": {}}, {"seconds": "60"}, {"length": None}, {"model_seconds": 1e300}]
)
def test_a_state_with_a_wrong_plan_is_refused(minute, monkeypatch, harm):
    Machine(monkeypatch)
    stopped = starting.train(minute, StopsAt(13))
    file = stopped.run.newest_state() / "progress.json"
    content = json.loads(file.read_text())
    content["plan"].update(harm)
    file.write_text(json.dumps(content))
    (stopped.run.newest_state() / "manifest.json").unlink()
    shape = stopped.run.newest_state() / "shape.json"
    shape.write_text(json.dumps({**json.loads(shape.read_text()), "version": 1}))  # has no manifest
    with pytest.raises(InputError, match=r"progress\.json does not fit the run \(.*plan"):
        starting.resume(stopped.run.path)
