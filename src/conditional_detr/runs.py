"""Run folders: config, metrics and states. A kill at any moment leaves a run folder usable."""

import json
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

from conditional_detr.config import Settings, changed_within_run, differences, fixed, load_settings
from conditional_detr.errors import CheckpointError, RunError, SettingsError
from conditional_detr.files import sync, write_text
from conditional_detr.locking import BusyError, FileLock
from conditional_detr.metrics_file import Metrics, read_records

KEPT_STATES = 2


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run. lock: held by the process that writes to it; None in all others."""

    path: Path
    lock: FileLock | None = field(default=None, compare=False, repr=False)

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
    def report(self) -> Path:
        """Folder of the report on the best model."""
        return self.path / "report"

    @property
    def states(self) -> Path:
        return self.path / "state"

    def locked(self) -> "RunFolder":
        """Return this folder with its lock. Raises ``CheckpointError`` when another process has it."""
        try:
            return replace(self, lock=FileLock(self.path / _LOCK))
        except BusyError as error:
            raise CheckpointError(f"{self.path} is in use by {error}; wait until that run ends, or stop it") from error
        except OSError as error:
            raise CheckpointError(
                f"{self.path / _LOCK} can't be written ({error.strerror}); a run needs a folder that it can write to"
            ) from error

    def release(self) -> None:
        if self.lock is not None:
            self.lock.release()

    @contextmanager
    def writing(self) -> Generator[None]:
        """Raise ``RunError`` for an ``OSError`` in the block, and when the folder was removed or replaced before it."""
        try:
            if self.lock is not None and not self.lock.in_place():
                raise RunError(f"{self.path} was removed or replaced while its run was going on; start the run again")
            yield
        except OSError as error:
            state = self.newest_state()
            left = "it has no state yet" if state is None else f"its newest state, {state.name}, is complete"
            raise RunError(
                f"{error.filename or self.path} can't be written ({error.strerror or error}); the run ends, and {left}: "
                f"make the disk writable and free some space, then resume"
            ) from error

    def write_config(self, settings: Settings) -> None:
        """Write settings that repeat the run from any folder under a new name."""
        write_text(self.config, repeatable(settings).to_yaml())

    def append(self, record: Metrics) -> None:
        """Append a line to the metrics. A line that a kill cut short is ended first."""
        with self.metrics.open("a+b") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def saved_states(self) -> list[Path]:
        """Return the folders of complete states, the newest first."""
        found = [path for path in self.states.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)

    def newest_state(self) -> Path | None:
        """Return the folder of the newest complete state, or None before the first one."""
        return next(iter(self.saved_states()), None)

    def partial_state(self) -> Path:
        """Return the folder that a state is written to before ``keep_state`` renames it."""
        return self.states / "partial"

    def begin_state(self) -> None:
        """Make ``partial_state`` an empty folder. Remove what a kill left in it."""
        self.states.mkdir(exist_ok=True)  # without parents, so that a removed run folder is an error
        _remove(self.partial_state())
        self.partial_state().mkdir()

    def keep_state(self, step: int) -> None:
        """Rename the state in ``partial_state`` to ``step-N`` once all is on disk. Then remove all but the newest states."""
        if self.metrics.exists():
            sync(self.metrics)  # its lines up to the state must outlive a loss of power too
        sync(self.partial_state())
        target = self.states / f"step-{step}"
        _remove(target)
        os.replace(self.partial_state(), target)
        sync(self.states)
        sync(self.path)  # where the folder of states is new
        kept = [path for path in self.saved_states() if not path.is_symlink()][:KEPT_STATES]
        for path in (*self.states.glob("step-*"), *self.states.glob(f"{_DAMAGED}*")):
            if path not in kept:
                _remove(path)

    def set_aside(self, state: Path) -> None:
        """Rename a damaged state, so that no later resume starts from it. ``keep_state`` removes it."""
        target = self.states / f"{_DAMAGED}{state.name}"
        _remove(target)
        os.replace(state, target)


_LOCK, _DAMAGED = ".lock", "damaged-"


def create_run(settings: Settings) -> RunFolder:
    """Create and lock the folder of a new run, and write its config. Raises ``CheckpointError`` when ``train.name`` is taken.

    A folder in which nothing of a run is, such as one left by a kill at this moment, is taken over.
    """
    output, name = settings.train.output, settings.train.name
    stem = name or settings.preset or "run"
    names = [stem] if name else (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    try:
        (output / stem).parent.mkdir(parents=True, exist_ok=True)
        run = next((run for each in names if (run := _claimed(output / each)) is not None), None)
        if run is None:
            raise CheckpointError(f"{output / stem} exists; give another train.name, or resume that run")
        run.write_config(settings)
        sync(run.path.parent)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or output} can't be written ({error.strerror}); give another train.output"
        ) from error
    return run


def _claimed(path: Path) -> RunFolder | None:
    """Return the locked run folder at ``path``, created where it is missing; None where something or someone is in it."""
    if path.exists() and not (path.is_dir() and _is_unused(path)):
        return None
    path.mkdir(exist_ok=True)
    try:
        run = RunFolder(path, FileLock(path / _LOCK))
    except BusyError:
        return None
    if _is_unused(path):
        return run
    run.release()  # another process was faster
    return None


def _is_unused(path: Path) -> bool:
    """Tell whether a folder holds at most what is there before the config of a run, and empty folders."""
    return all(
        entry.name in (_LOCK, ".config.yaml.partial") or (entry.is_dir() and not any(entry.iterdir()))
        for entry in path.iterdir()
    )


def open_run(path: Path, overrides: Sequence[str] = ()) -> tuple[RunFolder, Settings]:
    """Return an existing run and its settings with ``key=value`` overrides. The overrides are not written.

    Raises ``CheckpointError`` when ``path`` is not a run folder, and ``SettingsError`` for settings that can't change within a run.
    """
    run = RunFolder(path)
    if not run.config.is_file():
        if path.is_dir() and (path / _LOCK).exists() and _is_unused(path):
            raise CheckpointError(f"{path} holds nothing yet: its run was killed as it began; give its command again")
        raise CheckpointError(
            f"{path} is not a run folder: it has no config.yaml; give the folder that cdetr train made"
        )
    return run, changed_within_run(load_settings(run.config), overrides, path)


def begun_run(settings: Settings) -> RunFolder | None:
    """Return the run of this name, which ``train.resume=auto`` goes on with; None before it has begun.

    Raises ``SettingsError`` when it began with other settings that can't change within a run.
    """
    run = RunFolder(settings.train.output / settings.train.name)
    if not run.config.is_file():
        return None
    now = as_chosen(settings, run)
    for key, change in fixed(differences(load_settings(run.config), repeatable(now))).items():
        raise SettingsError(
            f"{run.path} began with another {key} ({change}), which can't change within a run; "
            f"set it back, or give another train.name"
        )
    return run


def as_chosen(settings: Settings, run: RunFolder) -> Settings:
    """Return settings with what the machine chose when a run began (``train.batch_size=auto``), as its config has it."""
    if settings.train.batch_size != "auto":
        return settings
    return with_batch_size(settings, load_settings(run.config).train.batch_size)


def with_batch_size(settings: Settings, batch_size: int | Literal["auto"]) -> Settings:
    return settings.model_copy(update={"train": settings.train.model_copy(update={"batch_size": batch_size})})


def read_metrics(file: Path, void: bool = False) -> list[Metrics]:
    """Return the records of ``metrics.jsonl``. A resume invalidates the lines after the state that it started from.

    Lines that are no records are left out with a logged warning, except for those that a kill cut short. void: return
    invalidated lines too, unless the resume started from the beginning.
    """
    records: list[Metrics] = []
    for record in read_records(file):
        if record["kind"] != "resume":
            records.append(record)
        elif not void or record["step"] == 0:
            records = [earlier for earlier in records if earlier["step"] <= record["step"]]
    return records


def best_of(scores: Sequence[float]) -> int | None:
    """Return the index of the best evaluation: the earliest with the highest AP. None without evaluations.

    While no AP is above 0, the newest is best: nothing is found yet, or AP can't be measured (-1).
    """
    if not scores:
        return None
    highest = max(scores)
    return scores.index(highest) if highest > 0 else len(scores) - 1


def best_evaluation(records: Sequence[Metrics]) -> Metrics | None:
    """Return the evaluation whose model is kept as the best (``best_of``); None without evaluations."""
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    best = best_of([record["AP"] for record in evaluations])
    return None if best is None else evaluations[best]


def evaluations_since_best(records: Sequence[Metrics]) -> int:
    """Return the number of evaluations after the one with the highest AP, the earliest of equals; 0 if AP can't be measured."""
    scores = [record["AP"] for record in records if record["kind"] == "evaluation"]
    highest = max(scores, default=-1)
    return 0 if highest < 0 else len(scores) - 1 - scores.index(highest)


def repeatable(settings: Settings) -> Settings:
    """Return settings that repeat a run from any folder: with absolute paths, and without the name, which is taken."""
    sections: dict[str, Any] = {}
    for name in ("model", "data", "train"):
        section = getattr(settings, name)
        paths = {key: Path(os.path.abspath(value)) for key, value in section if isinstance(value, Path)}
        sections[name] = section.model_copy(update=paths)
    sections["train"] = sections["train"].model_copy(update={"name": "", "resume": "never"})
    return settings.model_copy(update=sections)


def _remove(path: Path) -> None:
    """Remove a file or folder. Of a symbolic link, remove the link and keep its target."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
