"""Exponential moving average of the weights, with a decay that rises at the start."""

import math
from collections.abc import Callable
from typing import Any

from torch.optim.swa_utils import get_ema_multi_avg_fn


def averaging(decay: float, ramp: int) -> Callable[[Any, Any, Any], None]:
    """Return the update of an average for torch's ``AveragedModel``, which gives it averages, weights and the number of updates.

    ramp: steps of the rise; 0 for a constant decay. The form is that of YOLOv5, RT-DETR and RF-DETR (tau in ``ModelEma``).
    """
    if ramp == 0:
        return get_ema_multi_avg_fn(decay)

    def update(averages: Any, weights: Any, updates: Any) -> None:
        get_ema_multi_avg_fn(ramped(decay, ramp, int(updates)))(averages, weights, updates)

    return update


def ramped(decay: float, ramp: int, updates: int) -> float:
    """Return the decay after a number of updates."""
    return decay * (1 - math.exp(-updates / ramp))
