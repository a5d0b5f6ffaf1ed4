"""States of a run: everything that going on as if nothing had happened takes."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import AdamW

from conditional_detr.errors import CheckpointError
from conditional_detr.files import write_text
from conditional_detr.runs import RunFolder

SHAPE = "shape.json"


class Progress:
    """Where a run is, as far as the optimizer does not know it."""

    def __init__(self) -> None:
        self.step = 0  # optimizer steps done
        self.seconds = 0.0  # spent in training steps, over all resumes
        self.window: list[list[float]] = []  # what the steps since the last line of metrics measured

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def save_state(accelerator: Accelerator, run: RunFolder, progress: Progress, shape: dict[str, int]) -> None:
    """Save what ``accelerator`` has prepared and registered, ``progress`` among it, and the random states.

    shape: numbers that a run must have in common with its states. To be called by all processes.
    """
    if accelerator.num_processes > 1 and progress.window:  # one process writes its own for all
        window = torch.tensor(progress.window, device=accelerator.device)
        progress.window = cast(Tensor, accelerator.reduce(window, "mean")).tolist()
    accelerator.save_state(str(run.partial_state()))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_text(run.partial_state() / SHAPE, json.dumps(shape))
        run.keep_state(progress.step)
    accelerator.wait_for_everyone()


def load_state(accelerator: Accelerator, state: Path, optimizer: AdamW, shape: dict[str, int]) -> None:
    """Load a state into what ``accelerator`` has prepared and registered.

    Learning rates and weight decay stay those of ``optimizer``, so that an edited config counts. Raises ``CheckpointError``
    when ``shape`` is not that of the state.
    """
    check_shape(state, shape)
    given = [(group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups]
    accelerator.load_state(str(state))
    for group, (rate, decay) in zip(optimizer.param_groups, given, strict=True):
        group["initial_lr"], group["weight_decay"] = rate, decay


def check_shape(state: Path, shape: dict[str, int]) -> None:
    """Raise ``InputError`` when ``shape`` is not that of the state."""
    saved: dict[str, int] = json.loads((state / SHAPE).read_text(encoding="utf-8"))
    for what, count in shape.items():
        if saved.get(what, count) != count:  # older states name less
            raise CheckpointError(
                f"{state.parent.parent} was trained with {saved[what]} {what}, now there would be {count}; "
                f"resume with the same data, settings and number of processes"
            )
