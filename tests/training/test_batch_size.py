"""``train.batch_size=auto`` takes what fits, is told and kept."""

import pytest
import torch

from conditional_detr.config import load_settings
from conditional_detr.errors import InputError
from conditional_detr.loss.criterion import build_criterion
from conditional_detr.runs import open_run
from conditional_detr.training import starting
from conditional_detr.training.batch_size import largest_that_fits, train_once
from tests.training.test_loop import StopsAt, changed, metrics


def memory_for(images: int):
    """Return a step that runs out of memory with more images, and the numbers that it was tried with."""
    tried = []

    def attempt(batch_size: int) -> None:
        tried.append(batch_size)
        if batch_size > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return attempt, tried


@pytest.mark.parametrize(
    ("memory", "most", "chosen"), [(100, 64, 64), (9, 64, 8), (100, 48, 32), (1, 64, 1), (5, 1, 1)]
)
def test_the_largest_power_of_two_that_fits(memory, most, chosen):
    attempt, tried = memory_for(memory)
    assert largest_that_fits(attempt, most) == chosen
    assert tried == sorted(tried, reverse=True)


def test_not_even_one_image():
    attempt, _ = memory_for(0)
    with pytest.raises(InputError, match=r"batch_size=auto: not even one image fits into the memory of the GPU; set"):
        largest_that_fits(attempt, 64)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(batch_size: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_that_fits(broken, 64)


@pytest.mark.parametrize("groups", [1, 2])
def test_trying_leaves_the_network_as_it_was(tiny_model, groups):
    tiny_model.decoder.train_groups(groups)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    train_once(tiny_model, build_criterion(load_settings("conditional-detr_tiny_shapes").loss), 2, (32, 48), groups)
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_model.parameters())


@pytest.mark.usefixtures("_quick")
def test_a_run_keeps_what_was_chosen(small_run, caplog):
    caplog.set_level("INFO")
    auto = changed(small_run, train={"batch_size": "auto", "resume": "auto", "max_steps": 3})
    stopped = starting.train(auto, StopsAt(1))
    said = [text for text in caplog.messages if "batch_size=auto" in text]
    assert said == ["train.batch_size=auto: 2 images per process and forward pass, as on every CPU"]
    assert open_run(stopped.run.path)[1].train.batch_size == 2
    resumed = starting.train(auto)  # the same command goes on
    given = starting.train(changed(small_run, train={"batch_size": 2, "name": "given", "max_steps": 3}))
    assert metrics(resumed.run) == metrics(given.run)
    with pytest.raises(InputError, match=r"train\.batch_size can't change within a run"):
        starting.resume(resumed.run.path, overrides=["train.batch_size=auto"])
