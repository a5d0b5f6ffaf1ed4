"""Train in a run folder, from the first step or from a state."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import PartialState

from conditional_detr.config import Settings
from conditional_detr.runs import (
    RunFolder,
    as_chosen,
    begun_run,
    best_evaluation,
    create_run,
    open_run,
    read_metrics,
    with_batch_size,
)
from conditional_detr.training.agreement import on_main
from conditional_detr.training.budget import clock
from conditional_detr.training.callbacks import Callback, Summary
from conditional_detr.training.introduction import introduce, show_augmented
from conditional_detr.training.loop import MODELS, Loop
from conditional_detr.training.report import Reporter
from conditional_detr.training.resuming import Remark, check_terms, choose_state
from conditional_detr.training.setup import Setup, make_accelerator, set_up
from conditional_detr.training.states import load_state
from conditional_detr.training.trackers import Trackers, check_trackers, tracked
from conditional_detr.training.validation import Validation

logger = logging.getLogger(__name__)


def train(
    settings: Settings,
    reporter: Reporter | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    started: float | None = None,
) -> Summary:
    """Train a model in a new run folder or, with ``train.resume=auto``, in the one of this name that has begun.

    settings: as ``load_settings`` returns them. reporter: called after every step and evaluation; None for nobody.
    callbacks: called with metrics and results; they can end the run.
    started: ``time.monotonic()`` at the start of the time that ``train.minutes`` gives; the moment of the call by default.

    Raises ``InputError`` for invalid settings, data or weights, ``NonFiniteError`` for NaN or infinity in training, and
    ``RunError`` when the run can't go on for another reason. What was trained so far is then in a state.
    """
    started = clock() if started is None else started
    return _ended(
        settings, lambda accelerator: _run(accelerator, settings, None, reporter or Reporter(), callbacks, started)
    )


def resume(
    run: Path,
    reporter: Reporter | None = None,
    overrides: Sequence[str] = (),
    *,
    callbacks: Sequence[Callback] = (),
    started: float | None = None,
) -> Summary:
    """Resume a run with the same weights, optimizer, random states and order of data as without the interruption.

    run: the run folder. overrides: ``key=value`` settings that may change within a run; they are written to its config.yaml.
    reporter, callbacks, started: as in ``train``; of the minutes of the run, those of earlier starts are over. Raises ``InputError``
    for other overrides, when ``run`` is not a run folder or in use, when no state is whole, and when categories, number of images
    or processes changed. Other errors are those of ``train``.
    """
    started = clock() if started is None else started
    folder, settings = open_run(run, overrides)
    return _ended(
        settings,
        lambda accelerator: _run(
            accelerator, settings, folder, reporter or Reporter(), callbacks, started, bool(overrides)
        ),
    )


def is_main_process() -> bool:
    """Tell whether this is the process of a run that prints and writes files."""
    return PartialState().is_main_process


def _ended(settings: Settings, run: Callable[[Accelerator], Summary]) -> Summary:
    """Call ``run`` with this process's part in the processes of a run, and end that part."""
    check_trackers(settings)
    accelerator = make_accelerator(settings)
    summary = run(accelerator)
    # The model first: while it ends the threads of the process group, it holds Python's lock, for which they can wait (torch 2.13).
    accelerator.free_memory()
    accelerator.end_training()  # not after an error, because it waits for the other processes
    return summary


def _run(
    accelerator: Accelerator,
    settings: Settings,
    folder: RunFolder | None,
    reporter: Reporter,
    callbacks: Sequence[Callback],
    started: float,
    write_config: bool = False,
) -> Summary:
    with ExitStack() as held:
        if folder is None and settings.train.resume == "auto":
            folder, write_config = on_main(accelerator, lambda: begun_run(settings)), True
            settings = settings if folder is None else as_chosen(settings, folder)
        state, damaged, remarks = None, list[Path](), list[Remark]()
        if folder is not None:
            folder = _locked(accelerator, folder.locked, held)
            state, damaged, remarks = on_main(accelerator, partial(choose_state, folder))
        setup = set_up(settings, accelerator, from_state=state is not None)
        reporter = reporter if accelerator.is_main_process else Reporter()
        validation = None if setup.val_data is None else Validation(setup, setup.val_data, reporter)
        if folder is None:
            settings = with_batch_size(settings, setup.batch_size)  # a resume uses what was chosen here
            folder = _locked(accelerator, partial(create_run, settings), held)
        else:
            if state is not None:
                categories = setup.train_data.categories
                remarks += on_main(accelerator, lambda: check_terms(folder, state, setup.terms(), categories))
                load_state(setup, state)
            on_main(
                accelerator, lambda: _go_on(folder, setup.progress.step, damaged, settings if write_config else None)
            )
            for level, text in remarks:
                logger.log(level, text)
        logger.info(f"run folder: {folder.path}")
        introduce(setup, validation)
        on_main(accelerator, lambda: show_augmented(setup, folder))
        if not accelerator.is_main_process:
            callbacks = ()
        elif tracked(settings):
            callbacks = (*callbacks, Trackers(accelerator, settings, folder))
        loop = Loop(setup, validation, folder, reporter, callbacks, started)
        finished = loop.run()
        summary = _summary(setup, folder, finished)
        for each in callbacks:
            each.on_end(summary)
        return summary


def _locked(accelerator: Accelerator, lock: Callable[[], RunFolder], held: ExitStack) -> RunFolder:
    """Return the folder that ``lock`` locks on the main process, until ``held`` ends. Other processes get it without the lock."""
    locked: list[RunFolder] = []

    def on_this() -> Path:
        locked.append(lock())
        held.callback(locked[0].release)
        return locked[0].path

    path = on_main(accelerator, on_this)
    return locked[0] if locked else RunFolder(path)


def _go_on(folder: RunFolder, step: int, damaged: list[Path], changed: Settings | None) -> None:
    """Note in a run folder that the run goes on from a step. changed: settings to write, if they are others."""
    with folder.writing():
        for state in damaged:
            folder.set_aside(state)
        if changed is not None:
            folder.write_config(changed)
        folder.append({"kind": "resume", "step": step})


def _summary(setup: Setup, folder: RunFolder, finished: bool) -> Summary:
    records = read_metrics(folder.metrics, void=True)
    best = best_evaluation(records)
    newest = next((record for record in reversed(records) if record["kind"] in MODELS), None)
    model = newest if best is None else best
    return Summary(
        folder,
        finished,
        setup.progress.step,
        best,
        model_epoch=None if model is None else model["epoch"],
        left_out=len(setup.progress.left_out.names) + (0 if newest is None else newest.get("left_out", 0)),
    )
