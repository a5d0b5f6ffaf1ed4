"""``train.patience`` ends a run that does not improve any more."""

import pytest

from conditional_detr.config import load_settings
from conditional_detr.errors import InputError
from conditional_detr.runs import evaluations_since_best, read_metrics
from conditional_detr.training import starting
from conditional_detr.training.validation import Validation
from tests.training.test_loop import StopsAt, changed, metrics, warnings_in
from tests.training.test_minutes import Machine

pytestmark = pytest.mark.usefixtures("_quick")


@pytest.fixture
def scores(monkeypatch):
    """Let evaluations find these AP, by the number of the evaluation in a run."""

    measure = Validation.measure

    def give(*given: float) -> None:
        def measured(self, found):
            self.count = getattr(self, "count", -1) + 1
            found = measure(self, found)
            return found._replace(record={**found.record, "AP": given[self.count]})

        monkeypatch.setattr(Validation, "measure", measured)

    return give


def evaluations(run) -> list[float]:
    return [record["AP"] for record in read_metrics(run.metrics) if record["kind"] == "evaluation"]


def test_a_run_ends_when_ap_does_not_improve(small_run, scores, caplog):
    caplog.set_level("INFO")
    scores(0.1, 0.3, 0.3, 0.2, 0.4, 0.5)
    settings = changed(small_run, train={"epochs": 6, "patience": 2})
    summary = starting.train(settings)
    assert summary.finished
    assert evaluations(summary.run) == [0.1, 0.3, 0.3, 0.2]
    assert (summary.step, summary.model_epoch) == (8, 2)
    [said] = [text for text in caplog.messages if "patience" in text]
    assert said == (
        "the run ends after step 8, because AP has not improved for 2 evaluations (train.patience=2); to train for longer, "
        "resume with a larger train.patience, or 0"
    )
    before = metrics(summary.run)
    caplog.clear()
    assert starting.resume(summary.run.path).finished
    assert metrics(summary.run) == before
    assert said in caplog.messages
    scores(0.4, 0.5)
    longer = starting.resume(summary.run.path, overrides=["train.patience=0"])
    assert (longer.step, evaluations(longer.run)) == (12, [0.1, 0.3, 0.3, 0.2, 0.4, 0.5])


def test_a_resume_counts_the_evaluations_before(small_run, scores):
    scores(0.3, 0.2)
    settings = changed(small_run, train={"epochs": 6, "patience": 2})
    stopped = starting.train(settings, StopsAt(4))  # after the step, before its evaluation
    assert not stopped.finished
    done = len(evaluations(stopped.run))
    scores(*[0.3, 0.2, 0.1, 0.4][done:])
    assert evaluations(starting.resume(stopped.run.path).run) == [0.3, 0.2, 0.1]


def test_ap_that_can_not_be_measured_ends_no_run(small_run, scores, caplog):
    scores(-1.0, -1.0, -1.0)
    assert starting.train(changed(small_run, train={"epochs": 3, "patience": 1})).step == 6
    assert any("train.patience=1 has no effect while AP can't be measured" in text for text in warnings_in(caplog))


@pytest.mark.parametrize(
    ("scores", "since"),
    [([], 0), ([0.0], 0), ([0.0, 0.0], 1), ([0.2, 0.3, 0.3], 1), ([-1.0, -1.0], 0), ([0.3, 0.4], 0)],
)
def test_evaluations_since_the_best(scores, since):
    records = [{"kind": "evaluation", "AP": score} for score in scores]
    assert evaluations_since_best([{"kind": "train"}, *records]) == since


def test_patience_needs_evaluations():
    with pytest.raises(InputError, match=r"train\.patience=2 needs evaluations, and data\.val=none has none; set"):
        load_settings("conditional-detr_tiny_shapes", ["train.patience=2", "data.val=none"])


def test_a_run_of_minutes_can_end_earlier(small_run, scores, monkeypatch):
    scores(0.3, *[0.2] * 99)
    Machine(monkeypatch)
    summary = starting.train(changed(small_run, train={"minutes": 1.0, "patience": 1}))
    assert evaluations(summary.run) == [0.3, 0.2]
