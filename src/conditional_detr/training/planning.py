"""Keep a run of minutes within its time: measure it, decide its length, and correct it."""

import logging
import math

from conditional_detr.training.agreement import on_main
from conditional_detr.training.budget import MOST_FOR_MODELS, Pace, Plan
from conditional_detr.training.length import RunLength
from conditional_detr.training.setup import Setup

FORWARD = 0.5  # time of an image in evaluation by that in training, a cautious guess until the first evaluation

logger = logging.getLogger(__name__)


class Planner:
    """Decides the length of a run of minutes, and does nothing in other runs. All processes take the decision of the main one."""

    def __init__(self, setup: Setup, pace: Pace) -> None:
        self.setup, self.pace, self.train = setup, pace, setup.settings.train
        plan = setup.progress.plan
        if self.train.minutes and plan is not None and plan.seconds != self._budget:  # a resume with other minutes
            self._put(on_main(setup.accelerator, lambda: self._decided(plan, anew=True)))

    @property
    def _budget(self) -> float:
        return 60 * self.train.minutes

    def check(self) -> bool:
        """Decide or correct the length of the run, where that is due. Return True if it changed."""
        progress, length = self.setup.progress, self.setup.length
        if not self.train.minutes or progress.step >= length.steps:
            return False
        if progress.plan is not None and progress.step < self.pace.check:
            return False
        self._put(on_main(self.setup.accelerator, self._decide))
        return self.setup.length != length

    def _put(self, plan: Plan | None) -> None:
        if plan is not None:
            self.setup.progress.plan = plan
            self.pace.checked(self.setup.progress.step, plan.length.steps)

    def _decide(self) -> Plan | None:
        """Return what was measured with the length that follows from it; None while too little is measured."""
        pace, step, plan = self.pace, self.setup.progress.step, self.setup.progress.plan
        seconds, spent = pace.step_seconds(step), pace.spent
        if plan is None:
            if seconds is None or not pace.ready(step, self._budget):
                return None
            model_seconds = self._guess(seconds)
            plan = Plan(
                seconds=self._budget, length=self.setup.length, step_seconds=seconds, model_seconds=model_seconds
            )
            return self._decided(plan)
        measured = {
            "step_seconds": seconds or plan.step_seconds,
            "model_seconds": pace.model_seconds or plan.model_seconds,
        }
        plan = plan.model_copy(update=measured)
        return plan if plan.fits(step, spent) else self._decided(plan)

    def _decided(self, plan: Plan, anew: bool = False) -> Plan:
        step, before = self.setup.progress.step, plan.length
        plan = plan.model_copy(update={"seconds": self._budget})
        every = 1 if self.setup.val_data is None else self.setup.settings.evaluation.every
        plan = plan.decided(step, self.pace.spent, every, anew)
        now = plan.length
        if not before.decided:
            logger.info(
                f"train.minutes={self.train.minutes:g}: the run is {now.steps} steps long ({_epochs(now)}), "
                f"{plan.step_seconds:.2g} s each, with {self._models(plan)}"
            )
        elif before.steps != now.steps:
            logger.info(
                f"the run is now {now.steps} steps long ({_epochs(now)}) instead of {before.steps}, to "
                f"{'use' if now.steps > before.steps else 'end in'} train.minutes={self.train.minutes:g}, with {self._models(plan)}"
            )
        if (
            plan.model_seconds > MOST_FOR_MODELS * plan.seconds
            and not before.decided
            and self.setup.val_data is not None
        ):
            logger.warning(
                f"an evaluation takes about {plan.model_seconds / plan.seconds:.0%} of train.minutes={self.train.minutes:g}; "
                f"more minutes or fewer validation images leave more of them to training"
            )
        return plan

    def _guess(self, step_seconds: float) -> float:
        """Return the likely seconds of evaluating a model, from those of a step."""
        val, data = self.setup.val_data, self.setup.settings.data
        if val is None:
            return step_seconds
        images = math.ceil(len(val) / self.setup.processes)
        larger = (data.eval_short_side * len(data.short_sides) / sum(data.short_sides)) ** 2
        per_image = step_seconds / (self.setup.batch_size * self.train.accumulate)
        return step_seconds + images * per_image * FORWARD * larger

    def _models(self, plan: Plan) -> str:
        """Return how often models are due, and what each of them takes."""
        what = "a model" if self.setup.val_data is None else "an evaluation"
        if plan.length.models(0) <= 1:
            return f"{what} at its end ({plan.model_seconds:.2g} s)"
        epochs = "every epoch" if plan.length.every == 1 else f"every {plan.length.every} epochs"
        return f"{what} {epochs} ({plan.model_seconds:.2g} s)"


def _epochs(length: RunLength) -> str:
    return f"{length.steps / length.steps_per_epoch:.3g} epochs"
