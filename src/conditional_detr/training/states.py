"""States of a run: everything needed to resume it exactly."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from conditional_detr.errors import CheckpointError, newer_version
from conditional_detr.files import read_json
from conditional_detr.loss.criterion import TERMS
from conditional_detr.model.network import DETR
from conditional_detr.runs import RunFolder
from conditional_detr.training.state_files import (
    AVERAGED,
    MODEL,
    OPTIMIZER,
    PROGRESS,
    REMEDY,
    SCALER,
    SHAPE,
    Contents,
    Tensors,
    random_file,
    read_contents,
    write_json,
    write_tensors,
)

VERSION = 1  # version of a state; 0 means conditional-detr 0.1.0, which wrote no version
_MEASURED = len(TERMS) + 4  # numbers per step: loss, its terms, gradient norm, seconds, seconds waiting for data
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # state of AdamW per parameter


class Progress:
    """Progress of a run."""

    def __init__(self) -> None:
        self.step = 0  # optimizer steps done
        self.seconds = 0.0  # seconds in training steps, over all resumes
        self.window: list[list[float]] = []  # measurements of the steps since the last line of metrics


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Everything that changes in training and is stored in states.

    model: the network that trains. optimizer: AdamW itself. averaged: exponential moving average of the
    weights; None without.
    """

    accelerator: Accelerator
    model: DETR
    optimizer: AdamW
    averaged: AveragedModel | None
    progress: Progress


def save_state(trained: Trained, run: RunFolder, shape: dict[str, int]) -> None:
    """Save ``trained`` and the random states. All processes must call it.

    shape: numbers that a run must share with its states.
    """
    accelerator, progress = trained.accelerator, trained.progress
    if accelerator.num_processes > 1 and progress.window:  # the main process writes the mean of all
        window = torch.tensor(progress.window, device=accelerator.device)
        progress.window = cast(Tensor, accelerator.reduce(window, "mean")).tolist()
    if accelerator.is_main_process:
        run.begin_state()
    accelerator.wait_for_everyone()
    folder = run.partial_state()
    write_tensors(folder / random_file(accelerator.process_index), _random_states(accelerator.device))
    if accelerator.is_main_process:
        write_tensors(folder / MODEL, trained.model.state_dict())
        write_tensors(folder / OPTIMIZER, _moments(trained.optimizer))
        if trained.averaged is not None:
            write_tensors(folder / AVERAGED, trained.averaged.state_dict())
        if accelerator.scaler is not None:
            write_json(folder / SCALER, accelerator.scaler.state_dict())
        write_json(folder / PROGRESS, vars(progress))
        write_json(folder / SHAPE, {"version": VERSION, **shape})
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run.keep_state(progress.step)
    accelerator.wait_for_everyone()


def load_state(trained: Trained, state: Path, shape: dict[str, int]) -> None:
    """Load a state into ``trained``. No code in its files is run.

    The optimizer keeps its learning rates and other settings, so that changes to the config take effect. Raises
    ``CheckpointError`` when ``shape`` differs from that of the state, and for a file that is damaged or of another run.
    """
    try:
        saved = read_json(state / SHAPE, CheckpointError, REMEDY)
        if not all(type(count) is int for count in saved.values()):
            raise CheckpointError(f"{state / SHAPE} is damaged: it must hold whole numbers")
        if saved.get("version", 0) > VERSION:
            raise CheckpointError(newer_version(state, "state", saved["version"], VERSION))
        contents = read_contents(state, trained.accelerator.process_index)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; or delete {state} to train from the beginning") from error
    for what, count in shape.items():
        if saved.get(what, count) != count:  # older states lack some of them
            raise CheckpointError(
                f"{state.parent.parent} was trained with {saved[what]} {what}, now there would be {count}; "
                f"resume with the same data, settings and number of processes"
            )
    for field, put in (
        ("progress", _put_progress),
        ("model", _put_model),
        ("averaged", _put_averaged),
        ("optimizer", _put_optimizer),
        ("scaler", _put_scaler),
        ("random", _put_random_states),
    ):
        try:
            put(trained, contents)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{contents.files[field]} does not fit the run ({reason}); copy the run folder again, or delete {state} "
                f"to train from the beginning"
            ) from error


def _random_states(device: torch.device) -> Tensors:
    """Return the random states of torch, the only generators that training uses. The data has its own seeds."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["accelerator"] = torch.get_device_module(device).get_rng_state()
    return states


def _moments(optimizer: AdamW) -> Tensors:
    states = cast("dict[int, Tensors]", optimizer.state_dict()["state"])
    return {f"{place}.{name}": value for place, values in states.items() for name, value in values.items()}


# --- loading; each function raises an error for contents that do not fit ---


def _put_progress(trained: Trained, contents: Contents) -> None:
    step, seconds, window = (contents.progress[key] for key in ("step", "seconds", "window"))
    if type(step) is not int or not 0 <= step < 2**53:
        raise ValueError("step must be a whole number")
    if type(seconds) not in (int, float) or not math.isfinite(seconds):
        raise ValueError("seconds must be a number")
    rows = cast("list[list[float]]", window)
    if type(window) is not list or not all(type(row) is list and len(row) == _MEASURED for row in rows):
        raise ValueError(f"window must hold lists of {_MEASURED} numbers")
    if not all(type(value) in (int, float) for row in rows for value in row):
        raise ValueError(f"window must hold lists of {_MEASURED} numbers")
    progress = trained.progress
    progress.step, progress.seconds = step, float(seconds)
    progress.window = [[float(value) for value in row] for row in rows]


def _put_model(trained: Trained, contents: Contents) -> None:
    _load_all(trained.model, contents.model)


def _put_averaged(trained: Trained, contents: Contents) -> None:
    if trained.averaged is not None:
        _load_all(trained.averaged, contents.averaged or {})


def _load_all(module: nn.Module, given: Tensors) -> None:
    for name, value in module.state_dict().items():
        if name not in given:
            raise ValueError(f"{name} is missing")
        _check_like(given[name], value, name)
    module.load_state_dict(given)


def _check_like(given: Tensor, wanted: Tensor, name: str) -> None:
    if given.shape != wanted.shape or given.is_floating_point() != wanted.is_floating_point():
        raise ValueError(f"{name} is {given.dtype} {list(given.shape)}, not {wanted.dtype} {list(wanted.shape)}")


def _put_optimizer(trained: Trained, contents: Contents) -> None:
    optimizer, given = trained.optimizer, dict(contents.optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, Tensors] = {}
    for place, parameter in enumerate(parameters):
        if not any(f"{place}.{name}" in given for name in _MOMENTS):
            continue  # the parameter never had a gradient
        states[place] = {name: given.pop(f"{place}.{name}") for name in _MOMENTS}
        for name, value in states[place].items():
            wanted = torch.zeros(()) if name == "step" else parameter
            _check_like(value, wanted, f"{place}.{name}")
            states[place][name] = torch.empty_like(wanted, device="cpu").copy_(
                value.detach()
            )  # in the memory format of the parameter
    if given:
        raise ValueError(f"{next(iter(given))} belongs to no parameter")
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _put_scaler(trained: Trained, contents: Contents) -> None:
    scaler, given = trained.accelerator.scaler, contents.scaler
    if scaler is None or given is None:
        return
    for name, value in cast("dict[str, Any]", scaler.state_dict()).items():
        if type(given[name]) not in (int, float) or not (math.isfinite(given[name]) and given[name] >= 0):
            raise ValueError(f"{name} must be a number")
        if type(value) is int and type(given[name]) is not int:
            raise ValueError(f"{name} must be a whole number")
    scaler.load_state_dict(given)


def _put_random_states(trained: Trained, contents: Contents) -> None:
    torch.set_rng_state(contents.random["cpu"])
    device = trained.accelerator.device
    if device.type != "cpu" and "accelerator" in contents.random:
        torch.get_device_module(device).set_rng_state(contents.random["accelerator"])
