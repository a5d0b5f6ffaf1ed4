"""AdamW with the published parameter groups, and the learning rate of every step."""

import math
from itertools import chain

from torch.optim import AdamW

from conditional_detr.config import TrainSettings
from conditional_detr.model.network import DETR


def build_optimizer(model: DETR, settings: TrainSettings, scale: float = 1.0) -> AdamW:
    """Return AdamW on the trainable parameters: transformer and heads in the first group, the backbone in the second.

    A class head with a learning rate of its own (``lr_class_head``) is a third group. scale: factor of all learning rates. Each
    group stores its scaled rate as ``initial_lr``.
    """
    others = ("backbone",) if settings.lr_class_head is None else ("backbone", "class_head")
    rest = chain.from_iterable(part.parameters() for name, part in model.named_children() if name not in others)
    groups = [
        {"params": [p for p in rest if p.requires_grad], "lr": settings.lr * scale},
        {"params": [p for p in model.backbone.parameters() if p.requires_grad], "lr": settings.lr_backbone * scale},
    ]
    if settings.lr_class_head is not None:
        groups.append({"params": list(model.class_head.parameters()), "lr": settings.lr_class_head * scale})
    for group in groups:
        group["initial_lr"] = group["lr"]
    return AdamW(groups, lr=settings.lr * scale, weight_decay=settings.weight_decay, fused=True)


def learning_rate_factor(settings: TrainSettings, step: int | float, total_steps: int) -> float:
    """Return the factor of the learning rates in optimizer step ``step``, counted from 0."""
    # The length of a run of minutes depends on the machine, and can be less than the warm-up is meant for.
    warmup_steps = min(settings.warmup_steps, total_steps // 10) if settings.minutes else settings.warmup_steps
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if settings.schedule == "step":
        return 1.0 if step < round(settings.drop_at * total_steps) else 0.1
    begin = warmup_steps
    if settings.schedule == "flat-cosine":
        begin = max(warmup_steps, round(settings.flat_until * total_steps))
        if step < begin:
            return 1.0
    done = (step - begin) / max(total_steps - begin, 1)
    return settings.cosine_end + (1 - settings.cosine_end) * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimizer: AdamW, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
