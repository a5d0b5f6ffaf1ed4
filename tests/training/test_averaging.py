"""The moving average of the weights."""

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from conditional_detr.config import load_settings
from conditional_detr.errors import InputError
from conditional_detr.training import starting
from conditional_detr.training.averaging import averaging
from tests.checkpoints.models import load_checkpoint
from tests.training.test_loop import StopsAt, changed, metrics


def averages(decay: float, ramp: int, values: list[float]) -> list[float]:
    """Return the average after each of the values that a weight takes."""
    model = nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(model, multi_avg_fn=averaging(decay, ramp), use_buffers=True)
    found = []
    for value in values:
        nn.init.constant_(model.weight, value)
        averaged.update_parameters(model)
        found.append(averaged.module.weight.item())
    return found


def test_a_decay_that_rises_forgets_the_start():
    found = averages(0.9, 4, [8.0, 0.0, 0.0])
    decays = [0.9 * (1 - math.exp(-step / 4)) for step in (1, 2)]
    assert found == pytest.approx([8.0, 8 * decays[0], 8 * decays[0] * decays[1]])
    assert averages(0.9, 0, [8.0, 0.0, 0.0]) == pytest.approx([8.0, 7.2, 6.48])


@pytest.mark.usefixtures("_quick")
def test_a_resumed_run_goes_on_in_the_rise(small_run):
    settings = changed(small_run, train={"ema_decay": 0.99, "ema_ramp": 3})
    whole = starting.train(settings)
    stopped = starting.train(changed(settings, train={"name": "stopped"}), StopsAt(1))
    resumed = starting.resume(stopped.run.path)
    assert metrics(resumed.run) == metrics(whole.run)
    a, b = (load_checkpoint(each.run.last_model).model.state_dict() for each in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_rise_without_an_average_is_refused():
    with pytest.raises(
        InputError, match=r"train: ema_ramp=9 has no effect without a moving average; set ema_decay=0\.9"
    ):
        load_settings("conditional-detr_tiny_shapes", ["train.ema_ramp=9"])
