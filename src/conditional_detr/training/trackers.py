"""Metrics, settings, pictures and the model of a run for the trackers of accelerate (``train.log``)."""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

from conditional_detr.config import Settings
from conditional_detr.errors import SettingsError
from conditional_detr.runs import Metrics, RunFolder
from conditional_detr.training.callbacks import Callback, Summary

logger = logging.getLogger(__name__)
PROJECT = "conditional-detr"


def tracked(settings: Settings) -> list[str]:
    """Return the trackers that accelerate runs. The run writes TensorBoard's files itself."""
    return [name for name in dict.fromkeys(settings.train.log) if name != "tensorboard"]


def check_trackers(settings: Settings) -> None:
    """Raise ``SettingsError`` for a tracker whose package is not installed."""
    for name in settings.train.log:
        if find_spec(name) is None:
            raise SettingsError(f"train.log={name} needs a package: pip install {name}")


class Trackers(Callback):
    """Gives what a run writes to the trackers of its accelerator. One that fails is left out with a warning, and the run goes on."""

    def __init__(self, accelerator: Accelerator, settings: Settings, folder: RunFolder) -> None:
        self.folder = folder
        flat = {
            f"{section}.{key}": value if isinstance(value, int | float | str) else str(value)
            for section, values in settings.model_dump(mode="json").items()
            if isinstance(values, dict)
            for key, value in values.items()
        }
        options = {
            "wandb": {"name": folder.path.name, "dir": str(folder.path)},
            "mlflow": {"run_name": folder.path.name},
        }
        try:
            accelerator.init_trackers(PROJECT, flat, {name: options.get(name, {}) for name in tracked(settings)})
        except Exception as error:  # of many libraries, such as without a login
            raise SettingsError(
                f"train.log=[{','.join(tracked(settings))}] can't begin ({error}); log in, or leave it out"
            ) from error
        self.trackers: list[Any] = list(accelerator.trackers)  # each has its own methods besides ``log``

    def on_step(self, record: Metrics) -> None:
        self._log("train", record)

    def on_evaluation(self, record: Metrics, model: Path) -> None:
        self._log("evaluation", record)
        picture = self.folder.plots / "predictions.jpg"
        if picture.exists():
            with Image.open(picture) as image:
                pixels = np.asarray(image.convert("RGB"))[None]
            self._each(lambda each: _log_images(each, pixels, int(record["step"])))

    def on_end(self, summary: Summary) -> None:
        if summary.model_epoch is not None:
            self._each(lambda each: _log_model(each, summary.run))

    def _log(self, kind: str, record: Metrics) -> None:
        values = {f"{kind}/{key}": value for key, value in record.items() if isinstance(value, float) and value >= 0}
        for name, value in record.get("per_class", {}).items():
            if value >= 0:  # -1 is a metric that can't be measured
                values[f"{kind}/AP of {name}"] = value
        self._each(lambda each: each.log(values, step=int(record["step"])))

    def _each(self, give: Callable[[Any], None]) -> None:
        for each in list(self.trackers):
            try:
                give(each)
            except Exception as error:  # trackers raise errors of many libraries, such as of a network
                self.trackers.remove(each)
                logger.warning(f"train.log={each.name} fails and gets nothing more ({error}); metrics.jsonl has all")


def _log_images(tracker: Any, pixels: np.ndarray, step: int) -> None:
    if hasattr(tracker, "log_images"):
        tracker.log_images({"predictions": list(pixels)}, step=step)


def _log_model(tracker: Any, run: RunFolder) -> None:
    """Give the best checkpoint to the trackers that keep files."""
    if tracker.name == "wandb":
        import wandb  # pyright: ignore[reportMissingImports]

        artifact: Any = wandb.Artifact(run.path.name, type="model")
        artifact.add_dir(str(run.best_model))
        tracker.tracker.log_artifact(artifact)
    elif tracker.name == "mlflow":
        import mlflow  # pyright: ignore[reportMissingImports]

        mlflow.log_artifacts(str(run.best_model), "model")
