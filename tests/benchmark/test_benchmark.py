"""Counting and measuring, on small networks. No test depends on the speed of the machine."""

import os
import signal
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from conditional_detr.architecture import BackboneShape
from conditional_detr.benchmark.counting import COCO_SIZES, mean_multiply_adds, multiply_adds
from conditional_detr.benchmark.inputs import Inputs, difference
from conditional_detr.benchmark.measuring import Clock, Contender, in_turns, ratio, spread
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.config import ModelSettings, load_settings
from conditional_detr.errors import InputError
from conditional_detr.input_size import InputSize
from conditional_detr.model.network import build_model
from conditional_detr.record import Categories, ModelRecord
from tests.checkpoints.models import save_checkpoint
from tests.model.test_network import TINY

CPU = torch.device("cpu")


def test_multiply_adds_by_hand():
    """Convolutions count outputs x kernel x inputs, matrix products rows x inner x columns."""
    shape = BackboneShape(block="basic", depths=(1,), widths=(16,), stem_width=8)
    settings = TINY.model_copy(update={"backbone": shape, "encoder_layers": 0, "decoder_layers": 1})
    height, width, channels, queries, hidden, classes = 64, 96, 32, 7, 64, 5
    cells = height // 4 * width // 4
    convolutions = height * width // 4 * 8 * 49 * 3 + cells * 16 * 8 * 9 + cells * 16 * 16 * 9 + cells * 16 * 8
    convolutions += cells * channels * 16
    products = queries * channels * channels
    own = 6 * products + 2 * queries * queries * channels
    cross = 3 * cells * channels * channels + 4 * products + queries * cells * 3 * channels
    heads = 2 * products + queries * channels * (4 + classes)
    reference = 2 * (products + queries * channels * 2)
    total = convolutions + own + cross + 2 * queries * channels * hidden + heads + reference
    assert multiply_adds(settings, classes, (height, width)) == total


def test_mean_over_images_of_several_sizes():
    settings, size = TINY.resolved(), InputSize((64, 128))
    small, wide = (multiply_adds(settings, 5, each) for each in ((64, 64), (64, 128)))
    assert mean_multiply_adds(settings, 5, size, {(32, 32): 3, (10, 20): 1}) == pytest.approx((3 * small + wide) / 4)


def test_sizes_of_coco():
    assert sum(COCO_SIZES.values()) == 100
    assert all(max(size) == 640 or max(size) <= 640 for size in COCO_SIZES)


@pytest.mark.parametrize(
    ("preset", "published"),
    [("conditional-detr_r50_8xb2-50e_coco", 90e9), ("conditional-detr_r101_8xb2-50e_coco", 156e9)],
)
def test_near_the_paper(preset, published):
    """The count is at the mean image size, because a mean over all images takes half a minute."""
    settings = load_settings(preset).model.resolved()
    assert multiply_adds(settings, 91, (800, 1104)) == pytest.approx(published, rel=0.03)


def test_pairs_in_turn():
    order = []
    told = iter(range(8))
    runs = {name: lambda name=name: order.append(name) or float(next(told)) for name in "ab"}
    assert in_turns(runs, repeats=3, warmup=1) == {"a": [2.0, 4.0, 6.0], "b": [3.0, 5.0, 7.0]}
    assert order == ["a", "b"] * 4


def test_medians_and_ratios():
    assert spread([3.0, 1.0, 2.0, 100.0, 2.5]) == (2.5, 2.0, 3.0)
    assert spread([4.0]) == (4.0, 4.0, 4.0)
    assert ratio([1.0, 2.0, 30.0], [2.0, 4.0, 60.0]) == (0.5, 0.5, 0.5)  # pairs cancel changes in the machine's speed


def test_clock_adds_up_and_lets_go():
    clock, module = Clock(CPU), nn.Identity()
    clock.watch("module", module)
    clock.measured("sleep", time.sleep)(0.02)
    clock.measured("sleep", time.sleep)(0.02)
    module(torch.zeros(1))
    clock.release()
    seconds = clock.seconds["module"]
    module(torch.zeros(1))
    assert clock.seconds["sleep"] >= 0.04
    assert clock.seconds["module"] == seconds


def _hold(megabytes: int):
    held = torch.ones(megabytes, 2**18)
    return lambda: held + 1


class Sleeper:
    def __call__(self):
        time.sleep(0.05)

    def outputs(self):
        return [torch.full((2,), float(os.getpid())), torch.ones(2, dtype=torch.bfloat16)]


def _fail(error):
    raise error


def _ended_by(number):
    os.kill(os.getpid(), number)


def test_contender_in_a_process_of_its_own():
    """The contender reports its time, its results, and the memory of a tensor and of its sum with 1."""
    with Contender(CPU, Sleeper) as sleeper, Contender(CPU, _hold, 100) as holder:
        assert 0.05 <= sleeper.seconds() < 1
        process, halves = sleeper.outputs()
        assert process[0] != os.getpid()
        assert halves.tolist() == [1.0, 1.0]  # converted, because NumPy has no bfloat16
        holder.seconds()
        found = holder.peak_memory()
    if found is not None:  # if the system reports it
        assert found / 2**20 == pytest.approx(200, abs=15)


class UnsendableError(Exception):
    """An exception that can't be unpickled, because its arguments are not those of ``__init__``."""

    def __init__(self, one, two):
        super().__init__(one + two)


def _unsendable():
    raise UnsendableError("what went ", "wrong")


@pytest.mark.parametrize(
    ("make", "raised", "said"),
    [
        (partial(_fail, InputError("a reason")), InputError, "a reason"),
        (partial(_fail, torch.OutOfMemoryError()), InputError, "memory is too small.*smaller batch"),
        (partial(torch.empty, 2**55), InputError, "memory is too small"),
        (_unsendable, RuntimeError, "line(.|\n)*what went wrong"),
        (partial(_ended_by, signal.SIGKILL), InputError, "lack of memory.*smaller batch"),
        (partial(_ended_by, signal.SIGTERM), RuntimeError, "exit code -15"),
    ],
    ids=["input", "accelerator's memory", "memory", "defect", "killed", "ended"],
)
def test_what_goes_wrong_in_a_contender(make, raised, said):
    with Contender(CPU, make) as failing, pytest.raises(raised, match=said):
        failing.seconds()


def test_inputs_are_the_same_every_time():
    inputs = Inputs(2, 40, 60)
    assert torch.equal(inputs.images().pixels, inputs.images().pixels)
    assert inputs.images().pixels.shape == (2, 3, 40, 60)
    assert inputs.images().padding_mask is None
    assert [picture.size for picture in inputs.pictures()] == [(36, 24)] * 2
    for target in inputs.targets(5):
        assert len(target.labels) == 7
        assert bool(((target.boxes > 0) & (target.boxes < 1)).all())
    assert difference([np.zeros(2)], [np.array([0.5, -3.0])]) == [3.0]


def test_both_sides_train_the_same(tmp_path):
    """Both sides train the same parameters; their outputs agree before a step and change with it."""
    pytest.importorskip("transformers")
    from conditional_detr.benchmark import ours, theirs

    overrides = ["model.batch_norm=frozen", "model.norm_between_layers=true"]
    settings = load_settings("conditional-detr_tiny_shapes", overrides).model.resolved()
    torch.manual_seed(0)
    model = build_model(settings, 3).eval()
    nn.init.normal_(model.box_head.layers[-1].weight, std=0.1)
    save_checkpoint(
        Checkpoint(model, ModelRecord(settings.architecture(), Categories((1, 2, 3), ("a", "b", "c")), InputSize())),
        tmp_path,
    )
    inputs = Inputs(2, 64, 96)
    here = ours.Training(tmp_path, inputs, frozen_stages=1, checkpointing=False)
    trained = sum(p.numel() for p in here.model.parameters() if p.requires_grad)
    there = theirs.Training(tmp_path, inputs, trained)

    def outputs(side):
        return [each.cpu().numpy() for each in side.outputs()]

    before = outputs(here)
    assert max(difference(before, outputs(there))) < 1e-4
    for side in (here, there):
        side()
        assert min(difference(outputs(side), before)) > 1e-4
    parts = here.parts(repeats=1)
    assert set(parts) > {"backbone", "matcher", "loss", "backward", "optimizer"}
    with pytest.raises(AssertionError, match="parameters train in transformers"):
        theirs.Training(tmp_path, inputs, trained + 1)


def test_settings_of_other_networks_count_differently():
    assert multiply_adds(ModelSettings(dilation=True).resolved(), 91, (64, 64)) > multiply_adds(
        ModelSettings().resolved(), 91, (64, 64)
    )
