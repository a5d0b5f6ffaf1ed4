"""Evaluation during training. All processes share the images; the main one computes metrics and writes files."""

from collections.abc import Callable
from typing import Any, cast

from accelerate.utils import gather_object

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats import load
from conditional_detr.data.loading import evaluation_batches
from conditional_detr.evaluation.coco import CocoEvaluator, CocoMetrics, detect_batches, standard_max_dets
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.runtimes.torch import TorchRuntime
from conditional_detr.model.network import DETR
from conditional_detr.runs import Metrics, RunFolder, best_evaluation, read_metrics
from conditional_detr.structures import Detections
from conditional_detr.training.report import Reporter
from conditional_detr.training.run_plots import SampleImages, plot_run
from conditional_detr.training.setup import Setup


class Validation:
    """Evaluation of a run on its validation data."""

    def __init__(self, setup: Setup, reporter: Reporter) -> None:
        self.accelerator, self.data, self.record, self.reporter = (
            setup.accelerator,
            setup.val_data,
            setup.record,
            reporter,
        )
        self.settings, self.workers = setup.settings.evaluation, setup.settings.data.workers
        self.max_dets = self.settings.max_dets or standard_max_dets(self.data)
        self.samples = SampleImages(self.data)
        self.evaluator = CocoEvaluator(self.data) if self.accelerator.is_main_process else None

    def detect(
        self, model: DETR, asked_to_stop: Callable[[], bool]
    ) -> tuple[list[dict[str, Any]], dict[int, Detections]] | None:
        """Return the COCO results of all processes and the detections in the sample images, by image id.

        Return None when asked to stop.
        """
        was_training = model.training
        model.eval()
        try:
            return self._detect(Pipeline(self.record, TorchRuntime(model)), asked_to_stop)
        finally:
            model.train(was_training)

    def _detect(
        self, pipeline: Pipeline, asked_to_stop: Callable[[], bool]
    ) -> tuple[list[dict[str, Any]], dict[int, Detections]] | None:
        processes = self.accelerator.num_processes
        batches = evaluation_batches(
            self.data,
            self.record.input_size,
            self.settings.batch_size,
            self.workers,
            self.accelerator.process_index,
            processes,
        )
        results: list[dict[str, Any]] = []
        kept: list[tuple[int, Detections]] = []
        for done, (target, detections) in enumerate(detect_batches(pipeline, batches, self.max_dets), start=1):
            if asked_to_stop() and processes == 1:  # several processes can only stop together, at the next step
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
        """Return the metrics of the results of all processes. To be called on the main process only."""
        assert self.evaluator is not None
        return self.evaluator.evaluate(results, self.max_dets)

    def keep(self, run: RunFolder, record: Metrics, checkpoint: Checkpoint, found: dict[int, Detections]) -> bool:
        """Write checkpoints and pictures after an evaluation. Return True if its AP is the best so far."""
        earlier = read_metrics(run.metrics)
        best = best_evaluation(earlier)
        better = best is None or record["AP"] > best["AP"]
        write = load("huggingface").write
        write(checkpoint, run.last_model)
        if better:
            write(checkpoint, run.best_model)
        run.plots.mkdir(exist_ok=True)
        plot_run([*earlier, record], run.plots / "curves.png")
        self.samples.draw(found, run.plots / "predictions.jpg")
        return better
