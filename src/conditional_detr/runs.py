"""Run folders: config, metrics and states. A kill at any moment leaves a run folder usable."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conditional_detr.config import Settings, changed_within_run, load_settings
from conditional_detr.errors import CheckpointError
from conditional_detr.files import write_text
from conditional_detr.metrics_file import Metrics, read_records


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def best_model(self) -> Path:
        return self.path / "model"

    @property
    def last_model(self) -> Path:
        return self.path / "model_last"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def augmented(self) -> Path:
        """Page of augmented training images."""
        return self.plots / "augmented.jpg"

    @property
    def states(self) -> Path:
        return self.path / "state"

    def write_config(self, settings: Settings) -> None:
        """Write settings that repeat the run from any folder under a new name."""
        write_text(self.config, _repeatable(settings).to_yaml())

    def append(self, record: Metrics) -> None:
        """Append a line to the metrics. A line that a kill cut short is ended first."""
        with self.metrics.open("a+b") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def newest_state(self) -> Path | None:
        """Return the folder of the newest complete state, or None before the first one."""
        found = [path for path in self.states.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
        return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)

    def partial_state(self) -> Path:
        """Return the folder that a state is written to before ``keep_state`` renames it."""
        return self.states / "partial"

    def begin_state(self) -> None:
        """Make ``partial_state`` an empty folder. Remove what a kill left in it."""
        _remove(self.partial_state())
        self.partial_state().mkdir(parents=True)

    def keep_state(self, step: int) -> None:
        """Rename the state in ``partial_state`` to ``step-N``, then remove older states."""
        target = self.states / f"step-{step}"
        _remove(target)
        os.replace(self.partial_state(), target)
        for path in self.states.glob("step-*"):
            if path != target:
                _remove(path)


def create_run(settings: Settings) -> RunFolder:
    """Create the folder of a new run and write its config. Raises ``CheckpointError`` when ``train.name`` is taken."""
    output, name = settings.train.output, settings.train.name
    try:
        if name:
            path = output / name
            path.mkdir(parents=True)
        else:
            path = _numbered(output, settings.preset or "run")
    except FileExistsError as error:
        raise CheckpointError(f"{error.filename} exists; give another train.name, or resume that run") from error
    run = RunFolder(path)
    for folder in (run.states, run.plots):
        folder.mkdir()
    run.write_config(settings)
    return run


def open_run(path: Path, overrides: Sequence[str] = ()) -> tuple[RunFolder, Settings]:
    """Return an existing run and its settings with ``key=value`` overrides. The overrides are not written.

    Raises ``CheckpointError`` when ``path`` is not a run folder, and ``SettingsError`` for settings that can't change within a run.
    """
    run = RunFolder(path)
    if not run.config.is_file():
        raise CheckpointError(
            f"{path} is not a run folder: it has no config.yaml; give the folder that cdetr train made"
        )
    return run, changed_within_run(load_settings(run.config), overrides, path)


def read_metrics(file: Path) -> list[Metrics]:
    """Return the records of ``metrics.jsonl``. A resume invalidates the lines after the state that it started from.

    Lines that are no records are left out with a logged warning, except for those that a kill cut short.
    """
    records: list[Metrics] = []
    for record in read_records(file):
        if record["kind"] == "resume":
            records = [earlier for earlier in records if earlier["step"] <= record["step"]]
        else:
            records.append(record)
    return records


def best_evaluation(records: list[Metrics]) -> Metrics | None:
    """Return the evaluation with the highest AP, the earliest one if several are equal."""
    evaluations = (record for record in records if record["kind"] == "evaluation")
    return max(evaluations, key=lambda record: record["AP"], default=None)


def _repeatable(settings: Settings) -> Settings:
    """Return settings that repeat a run from any folder: with absolute paths, and without the name, which is taken."""
    sections: dict[str, Any] = {}
    for name in ("model", "data", "train"):
        section = getattr(settings, name)
        paths = {key: Path(os.path.abspath(value)) for key, value in section if isinstance(value, Path)}
        sections[name] = section.model_copy(update=paths)
    sections["train"] = sections["train"].model_copy(update={"name": ""})
    return settings.model_copy(update=sections)


def _remove(path: Path) -> None:
    """Remove a file or folder. Of a symbolic link, remove the link and keep its target."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _numbered(output: Path, stem: str) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = output / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
