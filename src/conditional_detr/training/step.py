"""One optimizer step: forward and backward passes, checks, update and measurements."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from conditional_detr.data.loading import Batch
from conditional_detr.errors import InputError, NonFiniteError, RunError
from conditional_detr.loss.criterion import TERMS, Losses
from conditional_detr.runs import Metrics
from conditional_detr.structures import Predictions
from conditional_detr.training.agreement import raise_any
from conditional_detr.training.optimizer import set_learning_rate
from conditional_detr.training.setup import Setup
from conditional_detr.training.states import share_left_out


def train_step(setup: Setup, batches: Iterator[Batch], factor: float, asked_to_stop: bool, inspection: Path) -> bool:
    """Do one optimizer step. Return True if any process was asked to stop.

    factor: factor of the learning rates. asked_to_stop: whether this process was asked to stop. inspection: folder for the
    weights and batch of a step that fails. Raises ``NonFiniteError`` when a loss or gradient is not finite. Raises ``InputError``
    or ``RunError`` in all processes when one of them can't load its images; nothing has changed then.
    """
    train, accelerator = setup.settings.train, setup.accelerator
    started = time.perf_counter()
    parts, failed = _load(batches, train.accumulate)
    waited = time.perf_counter() - started
    boxes = sum(len(target.labels) for _, targets in parts for target in targets)
    all_boxes, stop, failures = _sum_over_processes(setup, [boxes, int(asked_to_stop), int(failed is not None)])
    if failures:
        raise_any(accelerator, failed)
    # Gradients are averaged over processes, so this normalizes the loss by all objects of the step, at least one.
    num_boxes = max(all_boxes, 1) / setup.processes

    set_learning_rate(setup.optimizer, factor)
    setup.wrapped.train()
    losses: list[Losses] = []
    groups = train.query_groups
    try:
        for i, (images, targets) in enumerate(parts):
            last = i == len(parts) - 1  # only the last backward pass synchronizes gradients between processes
            with nullcontext() if last else accelerator.no_sync(setup.wrapped):
                images = images.to(accelerator.device)
                predictions = cast(Predictions, setup.wrapped(images.pixels, images.padding_mask))
                repeated = [target for target in targets for _ in range(groups)]
                loss = setup.criterion(predictions.by_group(groups), repeated, num_boxes * groups, share=1 / len(parts))
                accelerator.backward(loss.total)
            losses.append(loss)
        _update(setup, parts, losses, started, waited)
    except NonFiniteError as error:
        raise _inspected(setup, error, parts, inspection) from error
    return stop > 0


def _load(batches: Iterator[Batch], count: int) -> tuple[list[Batch], InputError | RunError | None]:
    """Return the batches of a step, or the error that prevents it."""
    try:
        return [next(batches) for _ in range(count)], None
    except (InputError, RunError) as error:
        return [], error


def _update(setup: Setup, parts: Sequence[Batch], losses: Sequence[Losses], started: float, waited: float) -> None:
    """Check, clip and apply the gradients, and record the measurements of the step."""
    train, accelerator, progress = setup.settings.train, setup.accelerator, setup.progress
    accelerator.unscale_gradients()
    norm = get_total_norm([p.grad for p in setup.model.parameters() if p.grad is not None])
    terms = torch.stack([loss.by_term()[:, -1] for loss in losses]).sum(0)
    total = torch.stack([loss.total.detach() for loss in losses]).sum()
    measured: list[float] = torch.cat([total[None], terms, norm.reshape(1)]).tolist()
    if not all(map(math.isfinite, measured)):
        for (_, targets), loss in zip(parts, losses, strict=True):
            loss.check_finite([target.image_name for target in targets for _ in range(train.query_groups)])
        if train.mixed_precision != "fp16":  # the gradient scaler of fp16 skips such a step itself
            raise NonFiniteError(f"NaN or infinity in the gradient of {_bad_gradient(setup)}")
    if train.clip_norm:
        clip_grads_with_norm_(setup.model.parameters(), train.clip_norm, norm)
    setup.prepared_optimizer.step()
    setup.prepared_optimizer.zero_grad()
    if setup.averaged is not None and not accelerator.optimizer_step_was_skipped:
        setup.averaged.update_parameters(setup.model)
    seconds = time.perf_counter() - started
    progress.step += 1
    progress.seconds += seconds
    progress.window.append([*measured, seconds, waited])


def _bad_gradient(setup: Setup) -> str:
    named = ((name, p.grad) for name, p in setup.model.named_parameters() if p.grad is not None)
    return next((name for name, grad in named if not bool(grad.isfinite().all())), "all parameters together")


def _inspected(setup: Setup, error: NonFiniteError, parts: Sequence[Batch], folder: Path) -> NonFiniteError:
    """Save weights, optimizer and batch of a failed step. Return the error with the path of the file."""
    step = setup.progress.step + 1
    file = folder / f"non-finite-step-{step}-process-{setup.accelerator.process_index}.pt"
    content = {
        "step": step,
        "model": setup.model.state_dict(),
        "optimizer": setup.optimizer.state_dict(),
        "pixels": [images.pixels for images, _ in parts],
        "padding_masks": [images.padding_mask for images, _ in parts],
        "targets": [[vars(target) for target in targets] for _, targets in parts],
    }
    try:
        folder.mkdir(exist_ok=True)
        torch.save(content, file)
        saved = f"weights, optimizer and batch are saved in {file}"
    except (OSError, RuntimeError) as failure:  # torch raises the second for a full disk
        with suppress(OSError):
            file.unlink(missing_ok=True)
        saved = f"weights, optimizer and batch can't be saved in {file} ({' '.join(str(failure).split())[:200]})"
    return NonFiniteError(
        f"{error} in step {step}; {saved}; "
        f"the usual remedies are a lower train.lr, train.clip_norm=0.1 and train.mixed_precision=no"
    )


def _sum_over_processes(setup: Setup, counts: list[int]) -> list[int]:
    if setup.processes == 1:
        return counts
    values = torch.tensor(counts, device=setup.accelerator.device)
    return cast(Tensor, setup.accelerator.reduce(values, "sum")).tolist()


def measurements(setup: Setup, everywhere: bool) -> Metrics:
    """Return the mean measurements since the last line of metrics. everywhere: over all processes instead of this one."""
    progress, rates = setup.progress, setup.optimizer.param_groups
    window = torch.tensor(progress.window, dtype=torch.float64).mean(0).float()
    if everywhere:
        window = cast(Tensor, setup.accelerator.reduce(window.to(setup.accelerator.device), "mean"))
    loss, *terms, grad_norm, seconds, waited = window.tolist()
    record: Metrics = {
        "kind": "train",
        "step": progress.step,
        "epoch": progress.step / setup.steps_per_epoch,
        "loss": loss,
        **{f"loss_{name}": value for name, value in zip(TERMS, terms, strict=True)},
        "grad_norm": grad_norm if math.isfinite(grad_norm) else None,  # fp16 skips steps that overflow
        "lr": rates[0]["lr"],
        "lr_backbone": rates[1]["lr"],
        **({"lr_class_head": rates[2]["lr"]} if len(rates) > 2 else {}),
        "images_per_second": setup.images_per_step / seconds,
        "data_wait": waited / seconds,
        "seconds": progress.seconds,
    }
    if setup.settings.data.on_error == "skip":
        if everywhere:
            share_left_out(setup)
        record["left_out"] = len(progress.left_out.names)
    return record
