"""Length of a run, in optimizer steps. What depends on it (learning rates, mosaics, evaluations) asks here."""

import math
from typing import Annotated

from pydantic import Field

from conditional_detr.architecture import Frozen
from conditional_detr.config import Settings

LONGEST = 10**9  # steps of a run whose length is not decided yet


_Count = Annotated[int, Field(ge=1)]


class RunLength(Frozen):
    """Length of a run. One that was decided in the middle of a run goes on with its schedule."""

    steps: _Count
    """optimizer steps of the schedule; ``LONGEST`` while it is not decided"""
    steps_per_epoch: _Count
    """optimizer steps of an epoch"""
    every: _Count
    """epochs between models, which are evaluated and saved"""
    start: Annotated[int, Field(ge=0)] = 0
    """step at which the length was decided; 0 for the beginning"""
    place: Annotated[float, Field(ge=0)] = 0.0
    """step of an undisturbed schedule of ``steps`` steps that ``start`` corresponds to"""

    @property
    def decided(self) -> bool:
        return self.steps < LONGEST

    @property
    def epochs(self) -> int:
        """Number of epochs, of which the last can be cut short."""
        return -(-self.steps // self.steps_per_epoch)

    def at(self, step: int) -> float:
        """Return the step of an undisturbed schedule of ``steps`` steps that ``step`` corresponds to."""
        if self.start == 0 or step >= self.steps:
            return float(step)
        return self.place + (self.steps - self.place) * (step - self.start) / (self.steps - self.start)

    def first_epochs(self, fraction: float) -> int:
        """Return the number of whole epochs in the first part of the schedule, rounded down."""
        place = fraction * self.steps
        if self.start > 0 and self.place < self.steps:
            done = (place - self.place) / (self.steps - self.place)
            place = self.start + max(done, 0.0) * (self.steps - self.start)
        return math.floor(place / self.steps_per_epoch + 1e-9)

    def model_due(self, step: int, last_step: int) -> bool:
        """Tell whether a model is due after a step: after every n-th epoch and after the last step."""
        return step > 0 and (step == last_step or step % (self.every * self.steps_per_epoch) == 0)

    def models(self, step: int) -> int:
        """Return the number of models due after the steps that follow ``step``."""
        between = self.every * self.steps_per_epoch
        return max(self.steps // between - step // between, 0) + (self.steps > step and self.steps % between > 0)


def length_of(settings: Settings, steps_per_epoch: int, evaluated: bool) -> RunLength:
    """Return the length of a run that ``train.steps`` or ``train.epochs`` gives. evaluated: whether there is validation data."""
    train = settings.train
    return RunLength(
        steps=train.steps or train.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        every=settings.evaluation.every if evaluated else 1,
    )
