"""Predictions and training steps of this package, as a whole and in parts."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from conditional_detr.allocator import keep_freed_memory
from conditional_detr.benchmark.inputs import Inputs
from conditional_detr.benchmark.measuring import Clock
from conditional_detr.boxes import center_to_corners
from conditional_detr.config import DataSettings, LossSettings, TrainSettings
from conditional_detr.data.images import read_image, to_pixels
from conditional_detr.data.transforms import LabeledImage, augment
from conditional_detr.inference.detector import Detector
from conditional_detr.inference.postprocess import detections_from
from conditional_detr.inference.runtimes import RuntimeName
from conditional_detr.inference.runtimes.torch import TorchRuntime
from conditional_detr.input_size import InputSize
from conditional_detr.loss.criterion import build_criterion
from conditional_detr.loss.matcher import HungarianMatcher
from conditional_detr.model.network import DETR
from conditional_detr.structures import ImageBatch, Outputs
from conditional_detr.training.optimizer import build_optimizer


class Prediction:
    """Forward pass of the checkpoint in ``folder``."""

    def __init__(self, folder: Path, inputs: Inputs, optimized: bool, compiled: bool) -> None:
        self.detector = Detector.from_pretrained(folder)
        if optimized or compiled:
            if self.detector.device.type == "cpu":
                keep_freed_memory()  # as the command line does
            self.detector.optimize(compiled)
        self.images = inputs.images().to(self.detector.device)

    def outputs(self) -> Outputs:
        return self()

    def __call__(self) -> Outputs:
        return self.detector.pipeline.runtime(self.images.pixels)


class ExportedPrediction:
    """Forward pass of an exported file in a runtime."""

    def __init__(self, file: Path, inputs: Inputs, runtime: str) -> None:
        self.runtime = Detector.from_pretrained(file, "cpu", runtime=cast(RuntimeName, runtime)).pipeline.runtime
        self.images = inputs.images()

    def outputs(self) -> Outputs:
        return self()

    def __call__(self) -> Outputs:
        return self.runtime(self.images.pixels)


def prediction_parts(folder: Path, inputs: Inputs, repeats: int) -> dict[str, list[float]]:
    """Measure the seconds of each part of a prediction, from RGB images to detections."""
    detector = Detector.from_pretrained(folder)
    size = InputSize((inputs.height, inputs.width), rule="stretch")
    pipeline = replace(detector.pipeline, record=replace(detector.record, input_size=size))
    pictures, images = inputs.pictures(), inputs.images()
    clock = _watched(detector.model, detector.device)
    sizes = [(inputs.height, inputs.width)] * inputs.batch

    def preprocess() -> ImageBatch:
        return pipeline.batch([pipeline.prepare(picture) for picture in pictures])

    turns: list[dict[str, float]] = []
    for _ in range(repeats + 1):
        clock.seconds = {}
        assert clock.measured("preprocess", preprocess)().size == images.size
        outputs = clock.measured("forward", pipeline.runtime)(images.pixels)
        frames = pipeline.frames(sizes, images)
        clock.measured("postprocess", detections_from)(
            outputs, frames, detector.categories, softmax=detector.model.softmax
        )
        turns.append(clock.seconds)
    clock.release()
    return _by_part(turns[1:], whole="forward", rest="heads")


def _watched(model: DETR, device: torch.device) -> Clock:
    clock = Clock(device)
    for name in ("backbone", "encoder", "decoder"):
        clock.watch(name, model.get_submodule(name))
    return clock


def _by_part(turns: list[dict[str, float]], whole: str, rest: str) -> dict[str, list[float]]:
    """Collect seconds by part. Part ``rest`` is the time of ``whole`` minus backbone, encoder and decoder."""
    parts: dict[str, list[float]] = {}
    for turn in turns:
        inner = sum(turn[name] for name in ("backbone", "encoder", "decoder"))
        for name, seconds in turn.items():
            parts.setdefault(rest if name == whole else name, []).append(seconds - inner if name == whole else seconds)
    return parts


class Training:
    """Optimizer step on the checkpoint in ``folder``: forward pass, loss, backward pass, clipping and AdamW."""

    def __init__(self, folder: Path, inputs: Inputs, frozen_stages: int, checkpointing: bool) -> None:
        detector = Detector.from_pretrained(folder)
        self.model, self.device = detector.model, detector.device
        if self.device.type == "cpu":
            keep_freed_memory()  # as training does
        self.model.backbone.freeze(frozen_stages)
        self.model.set_gradient_checkpointing(checkpointing)
        settings = TrainSettings()
        self.clip_norm = settings.clip_norm
        self.optimizer = build_optimizer(self.model, settings)
        self.criterion = build_criterion(LossSettings(), self.model.softmax)
        self.images = inputs.images().to(self.device)
        self.targets = inputs.targets(len(detector.categories))
        self.folder, self.inputs = folder, inputs

    def outputs(self) -> Outputs:
        """Return the outputs in evaluation mode, for comparison."""
        return TorchRuntime(self.model.eval())(self.images.pixels)

    def __call__(self) -> None:
        self._step(Clock(self.device))

    def _step(self, clock: Clock) -> None:
        self.model.train()
        predictions = clock.measured("forward", self.model)(self.images.pixels)
        objects = float(sum(len(target.labels) for target in self.targets))
        loss = clock.measured("loss", self.criterion)(predictions, self.targets, objects)
        clock.measured("backward", loss.total.backward)()
        clock.measured("optimizer", self._update)()

    def _update(self) -> None:
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = get_total_norm([cast(torch.Tensor, p.grad) for p in parameters])
        clip_grads_with_norm_(parameters, self.clip_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def parts(self, repeats: int) -> dict[str, list[float]]:
        """Measure the seconds of each part of a step. The loss is without the matcher, which is its own part."""
        clock = _watched(self.model, self.device)
        matcher = self.criterion.matcher
        self.criterion.matcher = cast(HungarianMatcher, clock.measured("matcher", matcher))
        files = [self.folder / f"{i}.jpg" for i in range(self.inputs.batch)]
        for file, picture in zip(files, self.inputs._replace(height=800, width=1067).pictures(), strict=True):
            picture.save(file, quality=90)
        turns: list[dict[str, float]] = []
        load = clock.measured("data (one process)", self._load)
        for _ in range(repeats + 1):
            clock.seconds = {}
            load(files)
            self._step(clock)
            clock.seconds["loss"] -= clock.seconds["matcher"]
            turns.append(clock.seconds)
        clock.release()
        self.criterion.matcher = matcher
        return _by_part(turns[1:], whole="forward", rest="heads")

    def _load(self, files: list[Path]) -> None:
        """Open and augment the images of a step, at the most common size of COCO, as a loading process does."""
        rng = np.random.default_rng(0)
        for file, target in zip(files, self.targets, strict=True):
            sample = LabeledImage(read_image(file), center_to_corners(target.boxes) * 480, target.labels)
            to_pixels(augment(sample, DataSettings(), rng).image)
