"""Evaluation while a run goes on: every process its images, one process the metrics, checkpoints and pictures."""

from collections.abc import Callable
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import gather_object

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.huggingface import save_checkpoint
from conditional_detr.config import DataSettings, EvaluationSettings
from conditional_detr.data.coco import CocoAnnotations
from conditional_detr.data.loading import evaluation_batches
from conditional_detr.data.transforms import InputSize
from conditional_detr.evaluation import CocoEvaluator, CocoMetrics, detect_batches, standard_max_dets
from conditional_detr.model.network import DETR
from conditional_detr.structures import Detections
from conditional_detr.training.report import Reporter
from conditional_detr.training.run_folder import Metrics, RunFolder, best_evaluation, read_metrics
from conditional_detr.training.run_plots import SampleImages, plot_run


class Validation:
    """The validation data of a run and what it is evaluated with."""

    def __init__(
        self,
        accelerator: Accelerator,
        data: CocoAnnotations,
        data_settings: DataSettings,
        settings: EvaluationSettings,
        reporter: Reporter,
    ) -> None:
        self.accelerator, self.data, self.reporter = accelerator, data, reporter
        self.settings, self.workers = settings, data_settings.workers
        self.input_size = InputSize((data_settings.eval_short_side, data_settings.eval_max_size))
        self.max_dets = settings.max_dets or standard_max_dets(data)
        self.samples = SampleImages(data)
        self.evaluator = CocoEvaluator(data.file) if accelerator.is_main_process else None

    def detect(
        self, model: DETR, asked_to_stop: Callable[[], bool]
    ) -> tuple[list[dict[str, Any]], dict[int, Detections]] | None:
        """COCO results of all processes, and the detections in the sample images; None when asked to stop."""
        processes = self.accelerator.num_processes
        batches = evaluation_batches(
            self.data,
            self.input_size,
            self.settings.batch_size,
            self.workers,
            self.accelerator.process_index,
            processes,
        )
        results: list[dict[str, Any]] = []
        kept: list[tuple[int, Detections]] = []
        found = detect_batches(
            model, batches, self.input_size, self.data.categories, self.max_dets, self.accelerator.device
        )
        for done, (target, detections) in enumerate(found, start=1):
            if asked_to_stop() and processes == 1:  # several processes must stay together until the next step
                return None
            results += detections.to_coco(target.image_id)
            if target.image_id in self.samples.image_ids:
                kept.append((target.image_id, detections))
            self.reporter.evaluating(min(done * processes, len(self.data)), len(self.data))
        return (
            cast("list[dict[str, Any]]", gather_object(results)),
            dict(cast("list[tuple[int, Detections]]", gather_object(kept))),
        )

    def evaluate(self, results: list[dict[str, Any]]) -> CocoMetrics:
        """Metrics of all results; on the main process only."""
        assert self.evaluator is not None
        return self.evaluator.evaluate(results, self.max_dets)

    def keep(self, run: RunFolder, record: Metrics, checkpoint: Checkpoint, found: dict[int, Detections]) -> bool:
        """Write checkpoints and pictures of an evaluation; True when it is the best so far."""
        earlier = read_metrics(run.metrics)
        best = best_evaluation(earlier)
        better = best is None or record["AP"] > best["AP"]
        save_checkpoint(checkpoint, run.last_model)
        if better:
            save_checkpoint(checkpoint, run.best_model)
        run.plots.mkdir(exist_ok=True)
        plot_run([*earlier, record], run.plots / "curves.png")
        self.samples.draw(found, run.plots / "predictions.jpg")
        return better
