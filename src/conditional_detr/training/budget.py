"""The time of a run of minutes (``train.minutes``): what steps and models take, and the number of steps that fits."""

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field

from conditional_detr.architecture import Frozen
from conditional_detr.training.length import LONGEST, RunLength

clock = time.monotonic
WARM_UP, MEASURED = 3, 10  # the first steps are slow and do not count; the length is decided after the second number
AIM, LOW, HIGH = 0.95, 0.9, 0.98  # part of the budget that is planned, and between which a plan is kept
MOST_FOR_MODELS = 0.15  # part of the budget that evaluating and saving models may take
_Seconds = Annotated[float, Field(gt=0, le=1e9)]


class Plan(Frozen):
    """What a run of minutes has measured and decided. It is stored in states."""

    seconds: _Seconds
    """budget of the run"""
    length: RunLength
    """length that was decided"""
    step_seconds: _Seconds
    """seconds of an optimizer step"""
    model_seconds: _Seconds
    """seconds of evaluating and saving a model"""

    def end(self, step: int, spent: float) -> float:
        """Return when the run ends, in seconds since its start. step: steps done. spent: seconds since the start."""
        steps = max(self.length.steps - step, 0)
        return spent + steps * self.step_seconds + self.length.models(step) * self.model_seconds

    def fits(self, step: int, spent: float) -> bool:
        """Tell whether the run ends in time with this length, and neither early nor with too many evaluations."""
        models = self.length.models(0)
        few = models <= 1 or models * self.model_seconds <= 1.2 * MOST_FOR_MODELS * self.seconds
        return few and LOW <= self.end(step, spent) / self.seconds <= HIGH

    def decided(self, step: int, spent: float, every: int, anew: bool = False) -> "Plan":
        """Return this plan with a length that ends the run in time.

        every: minimum number of epochs between models. anew: lay the schedule over the whole run again, instead of going on with
        it from this step.
        """
        old, cost, left = self.length, self.model_seconds, AIM * self.seconds - spent
        most = step + max(left - cost, 0.0) / self.step_seconds  # with a single model
        wanted = most * cost / (old.steps_per_epoch * MOST_FOR_MODELS * self.seconds)
        every = max(every, math.ceil(min(wanted, LONGEST)))
        length = old.model_copy(update={"every": every, "steps": max(step + 1, math.floor(min(most, LONGEST)))})
        steps = math.floor(min(step + (left - length.models(step) * cost) / self.step_seconds, LONGEST - 1))
        steps = max(steps, step, 1)
        place = old.at(step) / old.steps * steps if old.decided and not anew else 0.0
        update = {"steps": steps, "start": step if place else 0, "place": place}
        return self.model_copy(update={"length": length.model_copy(update=update)})


class Pace:
    """Measures the seconds of steps and of keeping a model, since the start of a process or the last check.

    before: seconds that earlier starts of the run took. started: ``clock()`` at this start. step: steps done by then.
    """

    def __init__(self, *, before: float, started: float, step: int) -> None:
        self.before, self.started, self.first_step = before, started, step
        self.save_seconds = 0.0  # of the newest state
        self.model_seconds: float | None = None  # of the newest model, with its state
        self.restart(step)
        self.check = step + MEASURED

    @property
    def spent(self) -> float:
        """Seconds since the start of the run, without times in which it was stopped."""
        return self.before + clock() - self.started

    def restart(self, step: int) -> None:
        """Measure steps from now on."""
        self.from_step, self.since, self.paused = step, clock(), 0.0

    def stepped(self, step: int) -> None:
        """Note that a step is done."""
        if step == self.first_step + WARM_UP:
            self.restart(step)

    @contextmanager
    def saving(self) -> Generator[None]:
        """Measure the saving of a state in the block, which does not count for steps."""
        began = clock()
        yield
        self.save_seconds = clock() - began
        self.paused += self.save_seconds

    @contextmanager
    def keeping_model(self, step: int) -> Generator[None]:
        """Measure the evaluation of a model in the block, which does not count for steps. A check is due after it."""
        began = clock()
        yield
        seconds = clock() - began
        self.paused += seconds
        self.model_seconds = seconds + self.save_seconds  # a state is saved before
        self.check = step

    def step_seconds(self, step: int) -> float | None:
        """Return the measured seconds per step; None before the first one."""
        steps = step - self.from_step
        return max((clock() - self.since - self.paused) / steps, 1e-9) if steps else None

    def ready(self, step: int, budget: float) -> bool:
        """Tell whether enough is measured to decide the length of a run of ``budget`` seconds.

        With slow steps it is less, but not the first ones alone, because a length of few steps can't be corrected.
        """
        part = self.spent / budget
        return step >= self.check or part > 0.8 or (part > 0.25 and step >= self.first_step + WARM_UP + 2)

    def checked(self, step: int, last_step: int) -> None:
        """Note that the plan was checked after a step. The next check is after an eighth of the remaining steps."""
        self.restart(step)
        self.check = step + max(MEASURED, (last_step - step) // 8)
