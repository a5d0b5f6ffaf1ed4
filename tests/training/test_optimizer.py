"""Parameter groups and learning rates."""

import pytest
import torch

from conditional_detr.config import TrainSettings, load_settings
from conditional_detr.training.optimizer import build_optimizer, learning_rate_factor, set_learning_rate


def test_published_groups(tiny_model):
    tiny_model.backbone.freeze(1)
    optimizer = build_optimizer(tiny_model, TrainSettings())
    rest, backbone = optimizer.param_groups
    assert (rest["lr"], backbone["lr"]) == (1e-4, 1e-5)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    in_groups = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(in_groups) == sorted(id(p) for p in tiny_model.parameters() if p.requires_grad)
    assert {id(p) for p in backbone["params"]} == {id(p) for p in tiny_model.backbone.parameters() if p.requires_grad}


def test_scaled_learning_rates(tiny_model):
    optimizer = build_optimizer(tiny_model, TrainSettings(), scale=2.0)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-5]
    set_learning_rate(optimizer, 1.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2e-4, 2e-5])


@pytest.mark.parametrize("steps_per_epoch", [1, 10, 6, 7393])
@pytest.mark.parametrize(
    ("preset", "overrides", "epoch"),
    [
        ("conditional-detr_r50_8xb2-50e_coco", [], 40),
        ("conditional-detr_r50_8xb2-50e_coco", ["train.epochs=10"], 8),
        ("detr_r50_8xb2-150e_coco", [], 100),
        ("detr_r50_8xb2-150e_coco", ["train.epochs=500", "train.drop_at=0.8"], 400),
    ],
)
def test_step_schedule_drops_after_its_part_of_the_run(preset, overrides, epoch, steps_per_epoch):
    settings = load_settings(preset, overrides).train
    total, drop = settings.epochs * steps_per_epoch, epoch * steps_per_epoch
    steps = (0, drop - 1, drop, total - 1)
    assert [learning_rate_factor(settings, step, total) for step in steps] == [1, 1, 0.1, 0.1]


def test_step_schedule_that_never_drops():
    settings = TrainSettings(drop_at=1.0)
    assert learning_rate_factor(settings, 499, 500) == 1


def test_cosine_with_warm_up():
    settings = TrainSettings(schedule="cosine", warmup_steps=10, cosine_end=0.01)
    factors = torch.tensor([learning_rate_factor(settings, step, 110) for step in range(110)])
    torch.testing.assert_close(factors[:10], torch.arange(1, 11) / 10)
    assert factors[10] == 1
    assert (factors[10:].diff() < 0).all()
    assert factors[60] == pytest.approx(0.505, abs=1e-3)
    assert factors[-1] == pytest.approx(0.01, abs=1e-3)


def test_flat_cosine():
    settings = TrainSettings(schedule="flat-cosine", warmup_steps=10, cosine_end=0.1, flat_until=0.5)
    factors = [learning_rate_factor(settings, step, 100) for step in range(101)]
    assert factors[9:51] == [1.0] * 42
    assert factors[75] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert learning_rate_factor(settings.model_copy(update={"flat_until": 1.0}), 99, 100) == 1


def test_a_class_head_with_a_rate_of_its_own(tiny_model):
    optimizer = build_optimizer(tiny_model, TrainSettings(lr_class_head=1e-3), scale=2.0)
    rest, backbone, head = optimizer.param_groups
    assert [group["lr"] for group in (rest, backbone, head)] == [2e-4, 2e-5, 2e-3]
    assert {id(p) for p in head["params"]} == {id(p) for p in tiny_model.class_head.parameters()}
    in_groups = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(in_groups) == sorted(id(p) for p in tiny_model.parameters() if p.requires_grad)
    set_learning_rate(optimizer, 0.5)
    assert head["lr"] == 1e-3
