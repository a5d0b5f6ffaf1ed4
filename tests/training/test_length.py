"""The length of a run, and the schedule that depends on it."""

from itertools import pairwise

import pytest

from conditional_detr.config import load_settings
from conditional_detr.errors import InputError
from conditional_detr.runs import open_run, read_metrics
from conditional_detr.training import starting
from conditional_detr.training.length import RunLength, length_of
from tests.training.test_loop import StopsAt, changed, metrics

pytestmark = pytest.mark.usefixtures("_quick")
TINY = "conditional-detr_tiny_shapes"


def test_steps_give_the_same_schedule_as_epochs_of_as_many(small_run, done):
    """Two epochs of two steps are four steps; the demo has mosaics in neither."""
    steps = starting.train(changed(small_run, train={"epochs": 50, "steps": 4}))
    assert metrics(steps.run) == metrics(done)


def test_steps_can_end_in_the_middle_of_an_epoch(small_run, caplog):
    caplog.set_level("INFO")
    summary = starting.train(changed(small_run, train={"steps": 5, "warmup_steps": 0, "cosine_end": 0.0}))
    records = read_metrics(summary.run.metrics)
    assert [record["step"] for record in records if record["kind"] == "evaluation"] == [2, 4, 5]
    rates = [record["lr"] for record in records if record["kind"] == "train"]
    assert rates[0] == pytest.approx(2e-3)
    assert rates[-1] == pytest.approx(2e-3 * 0.0955, rel=1e-2)  # (1 + cos(0.8 pi)) / 2
    assert "the run is 5 steps long (train.steps), which is 2.5 epochs" in caplog.messages


def test_a_run_of_steps_stops_resumes_and_goes_on_for_longer(small_run, done, caplog):
    caplog.set_level("INFO")
    settings = changed(small_run, train={"steps": 4})
    stopped = starting.train(settings, StopsAt(1))
    assert not stopped.finished
    resumed = starting.resume(stopped.run.path)
    assert metrics(resumed.run) == metrics(done)
    starting.resume(resumed.run.path)
    assert (
        "train.steps=4 asks for 4: nothing is left to train; to train for longer, resume with train.steps=N, N above 4"
        in (caplog.text)
    )
    assert starting.resume(resumed.run.path, overrides=["train.epochs=3"]).step == 6  # in another unit
    assert open_run(resumed.run.path)[1].train.steps == 0


def test_an_override_replaces_a_length_in_another_unit():
    values = load_settings(TINY, ["train.steps=9"])
    assert length_of(values, 4, evaluated=True).steps == 9
    again = values.model_copy(update={"preset": ""})
    assert again.train.steps == 9
    with pytest.raises(InputError, match=r"^train\.epochs=3 and train\.steps=9 both give the length of the run; leave"):
        load_settings(TINY, ["train.steps=9", "train.epochs=3"])
    assert load_settings(TINY, ["train.steps=0", "train.epochs=3"]).train.epochs == 3


def test_a_length_decided_in_the_middle_goes_on_with_the_schedule():
    """The schedule never goes back, and ends with the run."""
    whole = RunLength(steps=100, steps_per_epoch=10, every=1)
    assert [whole.at(step) for step in (0, 50, 99)] == [0, 50, 99]
    assert [whole.first_epochs(part) for part in (0.0, 0.8, 1.0)] == [0, 8, 10]
    half = RunLength(steps=60, steps_per_epoch=10, every=1, start=50, place=30.0)
    places = [half.at(step) / half.steps for step in range(50, 61)]
    assert places[0] == 0.5
    assert places[-1] == 1
    assert all(a < b for a, b in pairwise(places))
    assert half.first_epochs(0.8) == 5
    assert half.first_epochs(0.2) == 5  # over since before step 50: not in the epochs that follow
    assert half.epochs == 6


def test_models_are_counted_as_they_are_due():
    for steps in range(1, 30):
        length = RunLength(steps=steps, steps_per_epoch=3, every=2)
        for step in range(steps + 1):
            due = [each for each in range(step + 1, steps + 1) if length.model_due(each, steps)]
            assert length.models(step) == len(due)
