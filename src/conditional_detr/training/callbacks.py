"""Code of users that a run calls: loggers of their own, early stops, pruning."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conditional_detr.runs import Metrics, RunFolder


@dataclass(frozen=True)
class Summary:
    """Result of a run.

    finished: False when the run was asked to stop early. step: optimizer steps done. best: the evaluation record of the model
    that is kept as the best; None without an evaluation. While its AP is 0, or -1 because it can't be measured, that is the
    newest. model_epoch: epochs of training of that model, also without evaluation; None before the first model. left_out:
    number of images that can't be used, with ``data.on_error=skip``.
    """

    run: RunFolder
    finished: bool
    step: int
    best: Metrics | None
    model_epoch: float | None = None
    left_out: int = 0


class Callback:
    """Receiver of the results of a run. Override what you need; the methods of this class do nothing.

    They are called on the main process only. A method that returns True asks the run to stop: it ends after the next step with a state,
    from which it can be resumed. An exception ends the run.
    """

    def on_step(self, record: Metrics) -> bool | None:
        """Receive a line of metrics, every ``train.log_every`` steps: step, epoch, loss, losses by term, learning rates."""

    def on_evaluation(self, record: Metrics, model: Path) -> bool | None:
        """Receive the metrics of an evaluation: step, epoch, AP, AP50, per_class.

        model: checkpoint folder of the model that was evaluated; the next evaluation replaces it. Without validation data, the record
        has step and epoch only.
        """

    def on_end(self, summary: Summary) -> None:
        """Receive the result, when the run is finished or was stopped. It is not called after an error."""


def tell(callbacks: Sequence[Callback], record: Metrics, model: Path) -> bool:
    """Give a line of metrics to all callbacks. Return whether any of them asks to stop."""
    if record["kind"] == "train":
        answers = [each.on_step(record) for each in callbacks]
    elif record["kind"] in ("evaluation", "model"):
        answers = [each.on_evaluation(record, model) for each in callbacks]
    else:
        answers = []
    return any(answers)
