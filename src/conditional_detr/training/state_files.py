"""Files of a state: safetensors for tensors, JSON and YAML for the rest. None can contain code. A manifest has their checksums.

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
from conditional_detr.errors import CheckpointError, newer_version
from conditional_detr.files import checksum, read_json, whole_file, write_text

VERSION = 2  # version of a state; 1 has no manifest, settings and data; 0 means conditional-detr 0.1.0, which wrote no version
REMEDY = "copy the run folder again"
SHAPE, PROGRESS, SCALER, MANIFEST = "shape.json", "progress.json", "scaler.json", "manifest.json"
MODEL, OPTIMIZER, AVERAGED = "model.safetensors", "optimizer.safetensors", "averaged.safetensors"
CONFIG, DATA = "config.yaml", "data.safetensors"
_ALWAYS = (SHAPE, PROGRESS, MODEL, OPTIMIZER, CONFIG, DATA)  # in every state of this version
Tensors = dict[str, Tensor]


class DamagedError(CheckpointError):
    """A file of a state is missing or not as it was written."""


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
    with whole_file(file) as partial:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_text(file, json.dumps(content))


def write_manifest(state: Path) -> None:
    """Write the checksums of all files of a state, as its last file."""
    files = [file for file in sorted(state.iterdir()) if file.name != MANIFEST]
    write_json(state / MANIFEST, {file.name: checksum(file) for file in files})


def read_shape(state: Path) -> dict[str, int]:
    """Return the numbers that a run must share with a state, with ``version``. Raises ``CheckpointError`` for a newer version."""
    shape = read_json(state / SHAPE, DamagedError, REMEDY)
    if not all(type(count) is int for count in shape.values()):
        raise DamagedError(f"{state / SHAPE} is damaged: it must hold whole numbers; {REMEDY}")
    if shape.setdefault("version", 0) > VERSION:
        raise CheckpointError(newer_version(state, "state", shape["version"], VERSION))
    return shape


def check_files(state: Path) -> None:
    """Raise ``DamagedError`` naming the first file of a state that is missing or not as it was written.

    States of older versions have no manifest; their files are checked when they are read.
    """
    if read_shape(state)["version"] < 2:
        return
    listed = read_json(state / MANIFEST, DamagedError, REMEDY)
    for name in dict.fromkeys((*_ALWAYS, *listed)):
        file = state / name
        if file.parent != state or name not in listed:
            raise DamagedError(f"{state / MANIFEST} is damaged: it has a wrong list of files; {REMEDY}")
        try:
            same = checksum(file) == listed[name]
        except OSError as error:
            raise DamagedError(f"{file} can't be read ({error.strerror or error}); {REMEDY}") from error
        if not same:
            raise DamagedError(f"{file} is damaged: its checksum is not the one in {MANIFEST}; {REMEDY}")


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
