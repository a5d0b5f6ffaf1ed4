"""Evaluation during training. All processes share the images; the main one computes metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from accelerate.utils import broadcast, gather_object

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.loading import LeftOut, evaluation_batches
from conditional_detr.evaluation.coco import CocoEvaluator, CocoMetrics, detect_batches, standard_max_dets
from conditional_detr.evaluation.report import Found as Detected
from conditional_detr.evaluation.report import Matches, match
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.runtimes.torch import TorchRuntime
from conditional_detr.model.network import DETR
from conditional_detr.runs import Metrics
from conditional_detr.structures import Detections
from conditional_detr.training.agreement import everywhere
from conditional_detr.training.report import Reporter
from conditional_detr.training.run_plots import SampleImages
from conditional_detr.training.setup import Setup


class Found(NamedTuple):
    """Result of an evaluation, over all processes.

    results: in COCO format. samples: detections in the sample images, by image id. left_out: number of images that can't be
    used, which count as images without detections.
    """

    results: list[dict[str, Any]]
    samples: dict[int, Detections]
    left_out: int


class Measured(NamedTuple):
    """What an evaluation measured. record: for a line of ``metrics.jsonl``. matches: its detections and what they find."""

    record: Metrics
    metrics: CocoMetrics
    matches: Matches


class Validation:
    """Evaluation of a run on its validation data."""

    def __init__(self, setup: Setup, data: Annotations, reporter: Reporter) -> None:
        self.accelerator, self.data, self.record, self.reporter = setup.accelerator, data, setup.record, reporter
        self.settings, self.workers = setup.settings.evaluation, setup.settings.data.workers
        self.max_dets = self.settings.max_dets or standard_max_dets(data)
        self.samples = SampleImages(data)
        self.evaluator = CocoEvaluator(data) if self.accelerator.is_main_process else None
        self.leave_out = LeftOut() if setup.settings.data.on_error == "skip" else None

    def detect(self, model: DETR, asked_to_stop: Callable[[], bool]) -> Found | None:
        """Find objects in all images. Return None when asked to stop.

        Raises ``InputError`` or ``RunError`` in all processes when one of them can't load its images.
        """
        # In training, the batch statistics of the main process replace those of the others at each step. So the others evaluate
        # with them too, and a run that is resumed here, where all have them, is measured alike.
        broadcast(list(model.buffers()))
        was_training = model.training
        model.eval()
        try:
            pipeline = Pipeline(self.record, TorchRuntime(model))
            found = everywhere(self.accelerator, lambda: self._detect(pipeline, asked_to_stop))
        finally:
            model.train(was_training)
        if found is None:
            return None
        results, samples, done = found
        everything = cast("list[dict[str, Any]]", gather_object(results))
        shown = dict(cast("list[tuple[int, Detections]]", gather_object(samples)))
        return Found(everything, shown, len(self.data) - sum(cast("list[int]", gather_object([done]))))

    def _detect(
        self, pipeline: Pipeline, asked_to_stop: Callable[[], bool]
    ) -> tuple[list[dict[str, Any]], list[tuple[int, Detections]], int] | None:
        """Return results, detections in sample images and the number of images of this process."""
        processes = self.accelerator.num_processes
        batches = evaluation_batches(
            self.data,
            self.record.input_size,
            self.settings.batch_size,
            self.workers,
            self.accelerator.process_index,
            processes,
            self.leave_out,
        )
        results: list[dict[str, Any]] = []
        samples: list[tuple[int, Detections]] = []
        done = 0
        for target, detections in detect_batches(pipeline, batches, self.max_dets):
            if asked_to_stop() and processes == 1:  # several processes can only stop together, at the next step
                return None
            done += 1
            results += detections.to_coco(target.image_id)
            if target.image_id in self.samples.image_ids:
                samples.append((target.image_id, detections))
            self.reporter.evaluating(min(done * processes, len(self.data)), len(self.data))
        return results, samples, done

    def measure(self, found: Found) -> Measured:
        """Measure the detections of an evaluation. To be called on the main process only."""
        assert self.evaluator is not None
        metrics = self.evaluator.evaluate(found.results, self.max_dets)
        categories = self.record.categories
        record: Metrics = {
            **metrics.values,
            "per_class": {categories.name_of(id_): ap for id_, ap in metrics.per_class.items()},
            "max_dets": metrics.max_dets,
            **({"left_out": found.left_out} if self.leave_out is not None else {}),
        }
        return Measured(record, metrics, match(self.data, Detected.of(found.results, self.data)))
