"""States of a run: everything needed to resume it exactly."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from conditional_detr.config import Settings
from conditional_detr.data.fingerprint import Fingerprint
from conditional_detr.data.loading import LeftOut
from conditional_detr.errors import CheckpointError
from conditional_detr.files import write_text
from conditional_detr.loss.criterion import TERMS
from conditional_detr.model.network import DETR
from conditional_detr.runs import RunFolder, repeatable
from conditional_detr.training.agreement import everywhere, on_main
from conditional_detr.training.budget import Plan
from conditional_detr.training.state_files import (
    AVERAGED,
    CONFIG,
    DATA,
    MODEL,
    OPTIMIZER,
    PROGRESS,
    SCALER,
    SHAPE,
    VERSION,
    Contents,
    Tensors,
    random_file,
    read_contents,
    write_json,
    write_manifest,
    write_tensors,
)

logger = logging.getLogger(__name__)
_MEASURED = len(TERMS) + 4  # numbers per step: loss, its terms, gradient norm, seconds, seconds waiting for data
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # state of AdamW per parameter


class Progress:
    """Progress of a run."""

    def __init__(self) -> None:
        self.step = 0  # optimizer steps done
        self.seconds = 0.0  # seconds in training steps, over all resumes
        self.spent = 0.0  # seconds since the start of the run, over all resumes, when the newest state was saved
        self.plan: Plan | None = None  # of a run of minutes, once its length is decided
        self.window: list[list[float]] = []  # measurements of the steps since the last line of metrics
        self.left_out = LeftOut()  # training images that can't be used


@dataclass(frozen=True)
class Terms:
    """What a run and its states have in common.

    shape: numbers that must be equal. settings: as in the config of the run. data: fingerprint of the data.
    """

    shape: dict[str, int]
    settings: Settings
    data: Fingerprint


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


def save_state(trained: Trained, run: RunFolder, terms: Callable[[], Terms]) -> None:
    """Save ``trained`` and the random states. All processes must call it. Raises ``RunError`` when the disk does not take it.

    terms: called on the main process only.
    """
    accelerator, progress = trained.accelerator, trained.progress
    if accelerator.num_processes > 1 and progress.window:  # the main process writes the mean of all
        window = torch.tensor(progress.window, device=accelerator.device)
        progress.window = cast(Tensor, accelerator.reduce(window, "mean")).tolist()
    share_left_out(trained)

    def begin() -> None:
        with run.writing():
            run.begin_state()

    def write() -> None:
        folder = run.partial_state()
        with run.writing():
            write_tensors(folder / random_file(accelerator.process_index), _random_states(accelerator.device))
            if accelerator.is_main_process:
                _write_common(trained, folder, terms())

    def keep() -> None:
        with run.writing():
            write_manifest(run.partial_state())
            run.keep_state(progress.step)

    on_main(accelerator, begin)
    everywhere(accelerator, write)
    on_main(accelerator, keep)


def share_left_out(trained: Trained) -> None:
    """Give every process the names of the images that any of them left out."""
    names = trained.progress.left_out.names
    names.update(cast("list[str]", gather_object(sorted(names))))


def _write_common(trained: Trained, folder: Path, terms: Terms) -> None:
    progress, scaler = trained.progress, trained.accelerator.scaler
    write_tensors(folder / MODEL, trained.model.state_dict())
    write_tensors(folder / OPTIMIZER, _moments(trained.optimizer))
    if trained.averaged is not None:
        write_tensors(folder / AVERAGED, trained.averaged.state_dict())
    if scaler is not None:
        write_json(folder / SCALER, scaler.state_dict())
    plan = None if progress.plan is None else progress.plan.model_dump()
    write_json(folder / PROGRESS, {**vars(progress), "left_out": sorted(progress.left_out.names), "plan": plan})
    write_json(folder / SHAPE, {"version": VERSION, **terms.shape})
    write_tensors(folder / DATA, terms.data)
    write_text(folder / CONFIG, repeatable(terms.settings).to_yaml())


def load_state(trained: Trained, state: Path) -> None:
    """Load a state into ``trained``. No code in its files is run.

    The optimizer keeps its learning rates and other settings, so that changes to the config take effect. Raises
    ``CheckpointError`` for a file that is damaged or of another run.
    """
    remedy = f"or delete {state} to train from the beginning"
    try:
        contents = read_contents(state, trained.accelerator.process_index)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {remedy}") from error
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
                f"{contents.files[field]} does not fit the run ({reason}); copy the run folder again, {remedy}"
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
    spent, plan = contents.progress.get("spent", seconds), contents.progress.get("plan")  # older states lack them
    if type(step) is not int or not 0 <= step < 2**53:
        raise ValueError("step must be a whole number")
    if not all(type(each) in (int, float) and math.isfinite(each) for each in (seconds, spent)):
        raise ValueError("seconds must be a number")
    rows = cast("list[list[float]]", window)
    if type(window) is not list or not all(type(row) is list and len(row) == _MEASURED for row in rows):
        raise ValueError(f"window must hold lists of {_MEASURED} numbers")
    if not all(type(value) in (int, float) for row in rows for value in row):
        raise ValueError(f"window must hold lists of {_MEASURED} numbers")
    names = cast("list[str]", contents.progress.get("left_out", []))  # older states lack it
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError("left_out must hold names")
    progress = trained.progress
    progress.left_out.names = set(names)
    progress.step, progress.seconds, progress.spent = step, float(seconds), float(spent)
    progress.plan = None if plan is None else Plan.model_validate(plan, strict=True)
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
    if missing := len(parameters) - len(states):
        # Float16 can skip the first steps, so this is no proof of damage.
        logger.warning(
            f"{contents.files['optimizer']} has no moments of {missing} of {len(parameters)} parameters: "
            f"the optimizer starts anew with them"
        )
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _put_scaler(trained: Trained, contents: Contents) -> None:
    scaler, given = trained.accelerator.scaler, contents.scaler
    if scaler is None:
        return
    if given is None:
        raise ValueError("it is missing")
    for name, value in cast("dict[str, Any]", scaler.state_dict()).items():
        if type(given[name]) not in (int, float) or not (math.isfinite(given[name]) and given[name] >= 0):
            raise ValueError(f"{name} must be a number")
        if type(value) is int and type(given[name]) is not int:
            raise ValueError(f"{name} must be a whole number")
    scaler.load_state_dict(given)


def _put_random_states(trained: Trained, contents: Contents) -> None:
    torch.set_rng_state(contents.random["cpu"])
    device = trained.accelerator.device
    if (device.type != "cpu") != ("accelerator" in contents.random):
        logger.warning(
            f"{contents.files['random']} is of {'a CPU' if device.type != 'cpu' else 'an accelerator'} and this is "
            f"{device.type}: dropout draws other random numbers than without the interruption"
        )
    elif device.type != "cpu":
        torch.get_device_module(device).set_rng_state(contents.random["accelerator"])
