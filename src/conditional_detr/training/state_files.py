"""Files of a state: safetensors for tensors, JSON for the rest. Neither can contain code.

States of version 0.1.0 are pickles of accelerate. The safe reader of ``.pth`` files reads them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file
from torch import Tensor

from conditional_detr.checkpoints.safe_load import load_pth, load_safetensors
from conditional_detr.errors import CheckpointError
from conditional_detr.files import read_json, write_text

REMEDY = "copy the run folder again"
SHAPE, PROGRESS, SCALER = "shape.json", "progress.json", "scaler.json"
MODEL, OPTIMIZER, AVERAGED = "model.safetensors", "optimizer.safetensors", "averaged.safetensors"
Tensors = dict[str, Tensor]


@dataclass
class Contents:
    """Contents of the files of a state.

    optimizer: tensors with names such as ``0.exp_avg``, where the number is the index of the parameter. random: random states
    of one process, ``cpu`` and ``accelerator``. files: field -> its file.
    """

    model: Tensors
    optimizer: Tensors
    averaged: Tensors | None
    random: Tensors
    progress: dict[str, Any]
    scaler: dict[str, Any] | None
    files: dict[str, Path]


def random_file(process: int) -> str:
    return f"random_states_{process}.safetensors"


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_text(file, json.dumps(content))


def read_contents(state: Path, process: int) -> Contents:
    """Read a state for one process. Raises ``CheckpointError`` naming the damaged file."""
    if not (state / PROGRESS).exists() and (state / "custom_checkpoint_0.pkl").exists():
        return _read_0_1(state, process)
    files = {
        "model": state / MODEL,
        "optimizer": state / OPTIMIZER,
        "averaged": state / AVERAGED,
        "random": state / random_file(process),
        "progress": state / PROGRESS,
        "scaler": state / SCALER,
    }
    return Contents(
        model=load_safetensors(files["model"]),
        optimizer=load_safetensors(files["optimizer"]),
        averaged=load_safetensors(files["averaged"]) if files["averaged"].exists() else None,
        random=load_safetensors(files["random"]),
        # The gradient norm of a step that overflowed in fp16 is infinite.
        progress=read_json(files["progress"], CheckpointError, REMEDY, finite=False),
        scaler=read_json(files["scaler"], CheckpointError, REMEDY, finite=False) if files["scaler"].exists() else None,
        files=files,
    )


def _read_0_1(state: Path, process: int) -> Contents:
    """Read a state of version 0.1.0, without the random states of Python and NumPy, which training does not use."""
    files = {
        "model": state / MODEL,
        "optimizer": state / "optimizer.bin",
        "averaged": state / "custom_checkpoint_1.pkl",
        "random": state / f"random_states_{process}.pkl",
        "progress": state / "custom_checkpoint_0.pkl",
        "scaler": state / "scaler.pt",
    }
    model = load_safetensors(files["model"])
    if all(name.startswith("module.") for name in model):  # written by several processes
        model = {name.removeprefix("module."): value for name, value in model.items()}
    moments = _named(load_pth(files["optimizer"]), files["optimizer"]).get("state")
    optimizer = {
        f"{place}.{name}": value
        for place, values in (moments.items() if isinstance(moments, dict) else ())
        for name, value in _named(values, files["optimizer"]).items()
    }
    random = _named(load_pth(files["random"]), files["random"])
    drawn = {"cpu": random.get("torch_manual_seed")}
    for kind in ("cuda", "xpu"):
        devices = random.get(f"torch_{kind}_manual_seed")
        if isinstance(devices, list) and devices:
            drawn["accelerator"] = devices[process % len(cast("list[Any]", devices))]
    return Contents(
        model=model,
        optimizer=_tensors(optimizer, files["optimizer"]),
        averaged=_tensors(load_pth(files["averaged"]), files["averaged"]) if files["averaged"].exists() else None,
        random=_tensors(drawn, files["random"]),
        progress=_named(load_pth(files["progress"]), files["progress"]),
        scaler=_named(load_pth(files["scaler"]), files["scaler"]) if files["scaler"].exists() else None,
        files=files,
    )


def _named(content: Any, file: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is damaged: it is not a dictionary")
    return cast("dict[str, Any]", content)


def _tensors(content: Any, file: Path) -> Tensors:
    named = _named(content, file)
    if not all(type(value) is Tensor for value in named.values()):
        raise CheckpointError(f"{file} is damaged: it holds entries that are not tensors")
    return dict(named)
