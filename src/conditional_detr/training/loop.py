"""The training loop: optimizer steps, evaluations after epochs, and states to resume from."""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats import load
from conditional_detr.errors import InputError, RunError
from conditional_detr.evaluation.report import thresholds_from
from conditional_detr.runs import (
    Metrics,
    RunFolder,
    best_evaluation,
    evaluations_since_best,
    read_metrics,
)
from conditional_detr.training.agreement import on_main
from conditional_detr.training.best_report import BestEvaluation, report_best
from conditional_detr.training.budget import Pace
from conditional_detr.training.callbacks import Callback, tell
from conditional_detr.training.optimizer import learning_rate_factor
from conditional_detr.training.planning import Planner
from conditional_detr.training.report import Reporter, TensorBoard
from conditional_detr.training.run_plots import plot_run
from conditional_detr.training.setup import Setup
from conditional_detr.training.states import save_state
from conditional_detr.training.step import measurements, train_step
from conditional_detr.training.stopping import StopRequest, stop_requests
from conditional_detr.training.validation import Found, Validation

logger = logging.getLogger(__name__)


MODELS = ("evaluation", "model")  # kinds of the lines of metrics that are written with a model


class Loop:
    """The loop of a run, from its current step."""

    def __init__(
        self,
        setup: Setup,
        validation: Validation | None,
        folder: RunFolder,
        reporter: Reporter,
        callbacks: Sequence[Callback],
        started: float,
    ) -> None:
        self.callbacks, self.stop_asked = callbacks, False
        self.setup, self.validation, self.folder, self.reporter = setup, validation, folder, reporter
        main = setup.accelerator.is_main_process
        with folder.writing():
            self.board = TensorBoard(folder.path / "tensorboard") if main else None
        self.first_step = self.saved_step = setup.progress.step
        self.pace = Pace(before=setup.progress.spent, started=started, step=self.first_step)
        self.planner = Planner(setup, self.pace)
        self.batches, self.steps_per_epoch = setup.batches()
        self.best: BestEvaluation | None = None  # on the main process, once this process has made the best model
        self.mosaic_epochs = setup.mosaic_epochs

    @property
    def asked_steps(self) -> int:
        steps = self.setup.length.steps
        return min(self.setup.settings.train.max_steps or steps, steps)

    @property
    def last_step(self) -> int:
        return max(self.asked_steps, self.first_step)  # a resume can ask for fewer than are done

    def run(self) -> bool:
        """Train to the last step. Return False when asked to stop before it."""
        train, progress = self.setup.settings.train, self.setup.progress
        stopped = False
        self._tell_if_done()
        try:
            with stop_requests() as request:
                planned = self.last_step if self.setup.length.decided else 0
                self.reporter.begin(progress.step, planned, self.steps_per_epoch)
                while not stopped:
                    if self._model_due():
                        with self.pace.keeping_model(progress.step):
                            stopped = not self._keep_model(request)
                        if stopped:
                            break
                    if progress.step >= self.last_step or self._out_of_patience():
                        break
                    self._follow_plan()
                    if progress.step >= self.last_step:  # the model took the time that was left
                        break
                    request.requested |= self.stop_asked
                    stopped = self._step(request)
                    self.pace.stepped(progress.step)
                    self._follow_plan()
                    if progress.step % train.log_every == 0 or progress.step == self.last_step:
                        self._record(measurements(self.setup, everywhere=True))
                        progress.window = []
                    if stopped or self._state_due():
                        self._save()
                if not stopped and self.setup.accelerator.is_main_process:
                    report_best(self.setup, self.folder, self.best, self.reporter, lambda: request.requested)
        finally:
            self.reporter.end()
            self.batches.close()
            if self.board is not None:
                self.board.close()
        return not stopped

    def _tell_if_done(self) -> None:
        """Log how to go on with a run that has done its steps."""
        train, step = self.setup.settings.train, self.setup.progress.step
        if step < self.last_step:
            return
        if 0 < train.max_steps <= self.setup.length.steps:
            asked, longer = f"train.max_steps={train.max_steps}", "a larger train.max_steps, or 0"
        elif train.minutes:
            asked = f"train.minutes={train.minutes:g}"
            longer = f"train.minutes=N, N above {train.minutes:g}"
        elif train.steps:
            asked, longer = f"train.steps={train.steps}", f"train.steps=N, N above {step}"
        else:
            asked = f"train.epochs={train.epochs}"
            longer = f"train.epochs=N, N above {step // self.steps_per_epoch}"
        logger.info(
            f"the run is at step {step} (epoch {step / self.steps_per_epoch:.4g}), and {asked} asks for "
            f"{self.asked_steps}: nothing is left to train; to train for longer, resume with {longer}"
        )

    def _step(self, request: StopRequest) -> bool:
        """Do one optimizer step. Return True if any process was asked to stop."""
        length = self.setup.length
        place = length.at(self.setup.progress.step)
        factor = learning_rate_factor(self.setup.settings.train, place, length.steps)
        with self._saving_before_errors():
            stopped = train_step(self.setup, self.batches, factor, request.requested, self.folder.states)
        self.reporter.step(measurements(self.setup, everywhere=False))
        return stopped

    def _out_of_patience(self) -> bool:
        """Tell whether the newest evaluation ends the run, which is logged. Between evaluations nothing does."""
        step, patience = self.setup.progress.step, self.setup.settings.train.patience
        if not patience or not self.setup.length.model_due(step, self.last_step):
            return False
        return on_main(self.setup.accelerator, partial(self._has_not_improved, step, patience))

    def _has_not_improved(self, step: int, patience: int) -> bool:
        records = read_metrics(self.folder.metrics)
        best, since = best_evaluation(records), evaluations_since_best(records)
        if best is not None and best["AP"] < 0 and best["step"] == step:
            logger.warning(f"train.patience={patience} has no effect while AP can't be measured without boxes to find")
        if best is None or since < patience:
            return False
        logger.info(
            f"the run ends after step {step}, because AP has not improved for {since} evaluations "
            f"(train.patience={patience}); to train for longer, resume with a larger train.patience, or 0"
        )
        return True

    def _follow_plan(self) -> None:
        """Take over another length of the run, if it was decided after this step."""
        if not self.planner.check():
            return
        self.reporter.planned(self.last_step)
        epochs, mosaic = self.setup.mosaic_epochs, self.setup.settings.data.mosaic
        epoch = self.setup.progress.step // self.steps_per_epoch
        if mosaic and epochs != self.mosaic_epochs and max(epochs, self.mosaic_epochs) > epoch:
            self.batches.close()
            (self.batches, _), self.mosaic_epochs = self.setup.batches(), epochs

    def _state_due(self) -> bool:
        train, step = self.setup.settings.train, self.setup.progress.step
        if train.minutes:  # short epochs must not spend the time on saving states
            due = self.setup.length.model_due(step, self.last_step)
        else:
            due = step % self.steps_per_epoch == 0 or step == self.last_step
        return due or step % train.save_every == 0

    def _save(self) -> None:
        self.setup.progress.spent = self.pace.spent
        with self.pace.saving():
            save_state(self.setup, self.folder, self.setup.terms)
        self.saved_step = self.setup.progress.step

    @contextmanager
    def _saving_before_errors(self) -> Generator[None]:
        """Save a state before an error of the data, which is one of all processes, ends the run."""
        step = self.setup.progress.step
        try:
            yield
        except (InputError, RunError):
            try:
                if step != self.saved_step:
                    self._save()
            except RunError as error:
                logger.warning(f"no state of step {step} is saved: {error}")
            else:
                logger.info(
                    f"step {step} is saved; resume once the cause is mended" if step else "nothing is trained yet"
                )
            raise

    def _record(self, record: Metrics) -> None:
        on_main(self.setup.accelerator, partial(self._append, record))

    def _append(self, record: Metrics) -> None:
        assert self.board is not None
        with self.folder.writing():
            self.folder.append(record)
            self.board.write(record)
        if tell(self.callbacks, record, self.folder.last_model):
            self.stop_asked = True
            logger.info(f"a callback ends the run after step {record['step'] + 1}")

    def _model_due(self) -> bool:
        """Tell whether a model is due: after every n-th epoch and at the end of the run, unless written before a resume."""
        step = self.setup.progress.step
        if not self.setup.length.model_due(step, self.last_step):
            return False
        done = any(r["kind"] in MODELS and r["step"] == step for r in read_metrics(self.folder.metrics))
        self.setup.accelerator.wait_for_everyone()  # all processes have read the metrics before the main one appends to them
        return not done

    def _keep_model(self, request: StopRequest) -> bool:
        """Evaluate the model, write and record it. Return False when asked to stop before the end of the evaluation."""
        found = None
        if self.validation is not None:
            with self._saving_before_errors():
                found = self.validation.detect(self.setup.evaluated_model, lambda: request.requested)
            if found is None:
                return False
        on_main(self.setup.accelerator, partial(self._write_model, found))
        return True

    def _write_model(self, found: Found | None) -> None:
        progress, folder = self.setup.progress, self.folder
        record: Metrics = {"kind": "model", "step": progress.step, "epoch": progress.step / self.steps_per_epoch}
        measured, thresholds = None, None
        if self.validation is not None and found is not None:
            measured = self.validation.measure(found)
            record |= {"kind": "evaluation", **measured.record}
            thresholds = thresholds_from(measured.matches)
        record["seconds"] = progress.seconds
        earlier = read_metrics(folder.metrics, void=True)  # an evaluation that a resume voids still has its model
        best = found is None or best_evaluation([*earlier, record]) is record
        checkpoint = Checkpoint(self.setup.evaluated_model, replace(self.setup.record, thresholds=thresholds))
        with folder.writing():
            for out in (folder.last_model, folder.best_model) if best else (folder.last_model,):
                load("huggingface").write(checkpoint, out)
            folder.plots.mkdir(exist_ok=True)
            plot_run([*read_metrics(folder.metrics), record], folder.plots / "curves.png")
            if self.validation is not None and found is not None:
                self.validation.samples.draw(found.samples, folder.plots / "predictions.jpg")
        self._append(record)  # last, because a resume does not repeat a recorded evaluation
        if measured is not None and best:
            self.best = BestEvaluation(progress.step, measured.matches, measured.metrics)
        if found is not None:
            if record["AP"] == 0 and best and not any(r["kind"] == "evaluation" for r in earlier):
                logger.info("AP is 0: the newest model is kept as the best until one finds something")
            self.reporter.evaluated(record, best)
