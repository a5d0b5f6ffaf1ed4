"""Choose the batch size of ``train.batch_size=auto``: the largest power of two that fits into memory."""

import logging
from collections.abc import Callable
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size, gather_object

from conditional_detr.config import Settings
from conditional_detr.data.annotations import Annotations
from conditional_detr.errors import SettingsError
from conditional_detr.input_size import resized_size
from conditional_detr.loss.criterion import Criterion
from conditional_detr.model.network import DETR
from conditional_detr.structures import Predictions, Target

MOST, ON_A_CPU = 64, 2  # the second is the published one; with too much memory in use, a CPU does not fail but swaps
_KEPT = 4  # tensors as large as the weights, besides gradients: two moments of AdamW, an average, buckets of gradients

logger = logging.getLogger(__name__)


def choose_batch_size(
    model: DETR, criterion: Criterion, settings: Settings, data: Annotations, accelerator: Accelerator
) -> int:
    """Return the batch size for all processes, and log it. The network is moved to its device, and is otherwise as before.

    Raises ``SettingsError`` when not even one image fits.
    """
    images = max(len(data) // accelerator.num_processes, 1)
    if accelerator.device.type == "cpu":
        chosen, reason = min(ON_A_CPU, images), "as on every CPU"
    else:
        model.to(accelerator.device)
        height, width = largest_size(settings, data)

        def attempt(batch_size: int) -> None:
            with accelerator.autocast():
                train_once(model, criterion, batch_size, (height, width), settings.train.query_groups)

        chosen = largest_that_fits(attempt, min(MOST, images))
        reason = f"the largest power of two that fits into memory with images of {width} x {height} pixels"
    chosen = min(cast("list[int]", gather_object([chosen])))
    logger.info(f"train.batch_size=auto: {chosen} images per process and forward pass, {reason}")
    return chosen


def largest_that_fits(attempt: Callable[[int], None], most: int) -> int:
    """Return the largest power of two up to ``most`` with which ``attempt`` does not run out of memory.

    Raises ``SettingsError`` when it does with 1.
    """
    size = 2 ** (most.bit_length() - 1)

    def halved() -> int:
        nonlocal size
        size //= 2
        if size == 0:
            raise SettingsError(
                "train.batch_size=auto: not even one image fits into the memory of the GPU; set smaller data.short_sides and "
                "data.max_size, train.gradient_checkpointing=true or train.mixed_precision=bf16"
            )
        return size

    def tried(batch_size: int) -> int:
        attempt(batch_size)
        return batch_size

    search = find_executable_batch_size(tried, starting_batch_size=size, reduce_batch_size_fn=halved)
    return cast(Callable[[], int], search)()


def largest_size(settings: Settings, data: Annotations) -> tuple[int, int]:
    """Return the largest height and width of a training batch: images are padded to the largest of both."""
    short, longest = max(settings.data.short_sides), settings.data.max_size
    sizes = [resized_size(height, width, short, longest) for height, width in {tuple(map(int, s)) for s in data.sizes}]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def train_once(model: DETR, criterion: Criterion, batch_size: int, size: tuple[int, int], groups: int) -> None:
    """Do a forward and backward pass with black images, with memory taken for what training keeps. Leave the network as it was."""
    device = next(model.parameters()).device
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    try:
        kept = torch.empty(_KEPT * weights, device=device)
        model.train()
        pixels = torch.zeros(batch_size, 3, *size, device=device)
        mask = torch.zeros(batch_size, *size, dtype=torch.bool, device=device)
        predictions = cast(Predictions, model(pixels, mask)).by_group(groups)
        targets = [_target(size) for _ in range(batch_size * groups)]
        criterion(predictions, targets, float(len(targets))).total.backward()
        del kept
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def _target(size: tuple[int, int]) -> Target:
    labels, boxes = torch.zeros(1, dtype=torch.int64), torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    return Target(labels=labels, boxes=boxes, image_id=0, image_name="", image_size=size)
