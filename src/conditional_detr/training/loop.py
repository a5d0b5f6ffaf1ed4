"""The training loop: optimizer steps, evaluations after epochs, and states to resume from."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.config import Settings
from conditional_detr.runs import Metrics, RunFolder, best_evaluation, create_run, open_run, read_metrics
from conditional_detr.training.introduction import introduce, show_augmented
from conditional_detr.training.optimizer import learning_rate_factor
from conditional_detr.training.report import Reporter, TensorBoard
from conditional_detr.training.setup import Setup, make_accelerator, set_up
from conditional_detr.training.states import load_state, save_state
from conditional_detr.training.step import measurements, train_step
from conditional_detr.training.stopping import StopRequest, stop_requests
from conditional_detr.training.validation import Validation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """Result of a run.

    finished: False when the run was asked to stop early. step: optimizer steps done. best: the evaluation record with the
    highest AP; None without an evaluation.
    """

    run: RunFolder
    finished: bool
    step: int
    best: Metrics | None


def train(settings: Settings, reporter: Reporter | None = None) -> Summary:
    """Train a model in a new run folder.

    Raises ``InputError`` for invalid settings, data or weights, and ``NonFiniteError`` for NaN or infinity in training.
    """
    return _run(settings, None, reporter or Reporter())


def resume(run: Path, reporter: Reporter | None = None, overrides: Sequence[str] = ()) -> Summary:
    """Resume a run with the same weights, optimizer, random states and order of data as without the interruption.

    overrides: ``key=value`` settings that may change within a run; they are written to its config.yaml. Raises ``InputError``
    for other overrides, when ``run`` is not a run folder, and when the data or the number of processes has changed.
    """
    folder, settings = open_run(run, overrides)
    return _run(settings, folder, reporter or Reporter(), write_config=bool(overrides))


def is_main_process() -> bool:
    """Tell whether this is the process of a run that prints and writes files."""
    return PartialState().is_main_process


def _run(settings: Settings, folder: RunFolder | None, reporter: Reporter, write_config: bool = False) -> Summary:
    accelerator = make_accelerator(settings)
    state = None if folder is None else folder.newest_state()
    setup = set_up(settings, accelerator, from_state=state is not None)
    reporter = reporter if accelerator.is_main_process else Reporter()
    validation = Validation(setup, reporter)
    if folder is None:
        folder = _new_run(setup, settings)
    else:
        _load_state(setup, folder, state)
        if write_config and accelerator.is_main_process:
            folder.write_config(settings)
    logger.info(f"run folder: {folder.path}")
    introduce(setup, validation.max_dets)
    if accelerator.is_main_process:
        show_augmented(setup, folder)
    loop = _Loop(setup, validation, folder, reporter)
    finished = loop.run()
    return Summary(folder, finished, setup.progress.step, best_evaluation(read_metrics(folder.metrics)))


def _new_run(setup: Setup, settings: Settings) -> RunFolder:
    path = create_run(settings).path if setup.accelerator.is_main_process else None
    return RunFolder(cast("list[Path]", broadcast_object_list([path]))[0])


def _load_state(setup: Setup, folder: RunFolder, state: Path | None) -> None:
    accelerator = setup.accelerator
    if state is None:
        logger.info(f"{folder.path} has no state yet: starting from the beginning")
    else:
        load_state(setup, state, setup.shape())
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.append({"kind": "resume", "step": setup.progress.step})
    accelerator.wait_for_everyone()


class _Loop:
    """The loop of a run, from its current step."""

    def __init__(self, setup: Setup, validation: Validation, folder: RunFolder, reporter: Reporter) -> None:
        self.setup, self.validation, self.folder, self.reporter = setup, validation, folder, reporter
        self.main = setup.accelerator.is_main_process
        self.board = TensorBoard(folder.path / "tensorboard") if self.main else None
        self.batches, self.steps_per_epoch = setup.batches()
        train = setup.settings.train
        self.total_steps = train.epochs * self.steps_per_epoch
        self.last_step = min(train.max_steps or self.total_steps, self.total_steps)

    def run(self) -> bool:
        """Train to the last step. Return False when asked to stop before it."""
        train, progress = self.setup.settings.train, self.setup.progress
        stopped = False
        try:
            with stop_requests() as request:
                self.reporter.begin(progress.step, self.last_step, self.steps_per_epoch)
                while not stopped:
                    if self._evaluation_due() and not self._evaluate(request):
                        stopped = True
                        break
                    if progress.step >= self.last_step:
                        break
                    factor = learning_rate_factor(train, progress.step, self.total_steps)
                    stopped = train_step(self.setup, self.batches, factor, request.requested, self.folder.states)
                    self.reporter.step(measurements(self.setup, self.steps_per_epoch, everywhere=False))
                    if progress.step % train.log_every == 0 or progress.step == self.last_step:
                        self._record(measurements(self.setup, self.steps_per_epoch, everywhere=True))
                        progress.window = []
                    if stopped or self._at_end_of_epoch() or progress.step % train.save_every == 0:
                        save_state(self.setup, self.folder, self.setup.shape())
        finally:
            self.reporter.end()
            self.batches.close()
            if self.board is not None:
                self.board.close()
        self.setup.accelerator.end_training()  # not after an error, because it waits for the other processes
        return not stopped

    def _at_end_of_epoch(self) -> bool:
        step = self.setup.progress.step
        return step % self.steps_per_epoch == 0 or step == self.last_step

    def _record(self, record: Metrics) -> None:
        if self.main:
            self.folder.append(record)
        if self.board is not None:
            self.board.write(record)

    def _evaluation_due(self) -> bool:
        """Tell whether an evaluation is due: after every n-th epoch and at the end of the run, unless done before a resume."""
        step = self.setup.progress.step
        if step == 0 or not self._at_end_of_epoch():
            return False
        if step != self.last_step and step // self.steps_per_epoch % self.setup.settings.evaluation.every:
            return False
        done = any(r["kind"] == "evaluation" and r["step"] == step for r in read_metrics(self.folder.metrics))
        self.setup.accelerator.wait_for_everyone()  # all processes have read the metrics before the main one appends to them
        return not done

    def _evaluate(self, request: StopRequest) -> bool:
        """Evaluate, save and record. Return False when asked to stop before the end of the evaluation."""
        model, progress = self.setup.evaluated_model, self.setup.progress
        found = self.validation.detect(model, lambda: request.requested)
        if found is None:
            return False
        if self.main:
            results, pictures = found
            categories = self.setup.record.categories
            metrics = self.validation.evaluate(results)
            record: Metrics = {
                "kind": "evaluation",
                "step": progress.step,
                "epoch": progress.step / self.steps_per_epoch,
                **metrics.values,
                "per_class": {categories.name_of(id_): ap for id_, ap in metrics.per_class.items()},
                "max_dets": metrics.max_dets,
                "seconds": progress.seconds,
            }
            best = self.validation.keep(self.folder, record, Checkpoint(model, self.setup.record), pictures)
            self._record(record)  # last, because a resume does not repeat a recorded evaluation
            self.reporter.evaluated(record, best)
        self.setup.accelerator.wait_for_everyone()
        return True
