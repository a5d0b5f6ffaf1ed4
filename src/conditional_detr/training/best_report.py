"""The report on the best model, written at the end of a run."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from conditional_detr.data.annotations import Annotations
from conditional_detr.errors import InputError
from conditional_detr.evaluation.coco import CocoMetrics, evaluate_detector
from conditional_detr.evaluation.report import TOLD, Found, Matches, analyze, match, read_info, write_report
from conditional_detr.inference.detector import Detector
from conditional_detr.runs import RunFolder, best_evaluation, read_metrics
from conditional_detr.training.report import Reporter
from conditional_detr.training.setup import Setup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BestEvaluation:
    """The evaluation of the best model so far. step: optimizer steps of training before it."""

    step: int
    matches: Matches
    metrics: CocoMetrics


class _StoppedError(Exception):
    """The run was asked to stop."""


def report_best(
    setup: Setup,
    folder: RunFolder,
    best: BestEvaluation | None,
    reporter: Reporter,
    asked_to_stop: Callable[[], bool],
) -> None:
    """Write the report on the best model of a run, unless it is there. To be called on the main process only.

    best: its evaluation, if this process made it. Otherwise the model was made before a resume, and is evaluated again. What
    prevents the report is logged, because the run itself is complete.
    """
    data, settings = setup.val_data, setup.settings
    record = best_evaluation(read_metrics(folder.metrics, void=True))
    if not settings.evaluation.report or data is None or record is None:
        return
    if read_info(folder.report).get("step") == record["step"]:
        return
    try:
        if best is None or best.step != record["step"]:
            if setup.accelerator.num_processes > 1:  # the others would wait for longer than they may
                logger.info(
                    f"{folder.path} has no report, because its best model was made before the resume; evaluate it with a report"
                )
                return
            best = _evaluated_again(setup, folder, data, record["step"], reporter, asked_to_stop)
        about = {"model": str(folder.best_model), "step": best.step, "epoch": record["epoch"]}
        hints = write_report(folder.report, analyze(best.matches, best.metrics), setup.record, about)
        for hint in hints[:TOLD]:
            logger.info(f"hint: {hint}")
    except _StoppedError:
        logger.info("no report is written, because the run was asked to stop; everything else is complete")
    except (InputError, OSError) as error:
        logger.warning(f"no report is written: {error}")


def _evaluated_again(
    setup: Setup,
    folder: RunFolder,
    data: Annotations,
    step: int,
    reporter: Reporter,
    asked_to_stop: Callable[[], bool],
) -> BestEvaluation:
    """Evaluate the best model in the run folder."""

    def on_image(done: int) -> None:
        if asked_to_stop():
            raise _StoppedError
        reporter.evaluating(done, len(data))

    settings = setup.settings
    detector = Detector.from_pretrained(folder.best_model, setup.accelerator.device)
    metrics, results = evaluate_detector(
        detector, data, settings.evaluation, settings.data.workers, on_image, settings.data.on_error
    )
    return BestEvaluation(step, match(data, Found.of(results, data)), metrics)
