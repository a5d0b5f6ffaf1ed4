"""One door for every format: what a file or folder holds is seen from its content."""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.huggingface import load_checkpoint
from conditional_detr.checkpoints.mmdetection import from_mmdetection
from conditional_detr.checkpoints.official import from_official
from conditional_detr.checkpoints.safe_load import load_pth
from conditional_detr.checkpoints.state import read_state
from conditional_detr.data.transforms import BoxFrame
from conditional_detr.errors import InputError

_HUB_FILES = ["config.json", "preprocessor_config.json", "model.safetensors"]


def open_checkpoint(source: str | Path, dilation: bool | None = None, boxes: BoxFrame | None = None) -> Checkpoint:
    """The model in a run folder (its best), a checkpoint folder, a ``.pth`` file, or on the Hugging Face hub.

    dilation: whether it is a DC5 model, for files that do not say. boxes: what its boxes are relative to, in place of what
    the file says. Raises ``InputError`` naming what is wrong.
    """
    path = Path(source)
    try:
        if not path.exists() and _is_hub_id(str(source)):
            path = _download(str(source))
        if path.is_dir():
            return load_checkpoint(checkpoint_folder(path), dilation, boxes)
        checkpoint = _open_file(path, dilation)
        size = checkpoint.input_size
        return replace(checkpoint, input_size=replace(size, boxes=boxes or size.boxes))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{source} can't be read ({error.strerror or error}); check the path") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = reprlib.repr(error)
        raise InputError(f"{source} is damaged: its parts contradict each other ({reason}); get it again") from error


def checkpoint_folder(path: Path) -> Path:
    """The checkpoint folder that a folder means: itself, or the best one of a run. Raises ``InputError``."""
    for folder in (path, path / "model", path / "model_last"):
        if (folder / "config.json").is_file():
            return folder
    if (path / "config.yaml").is_file():
        raise InputError(f"run {path} has no checkpoint yet: it writes the first one after its first evaluation")
    raise InputError(
        f"{path} holds neither config.json nor model/config.json; give a run folder or a checkpoint folder"
    )


def _open_file(file: Path, dilation: bool | None) -> Checkpoint:
    if not file.exists():
        raise InputError(f"{file} does not exist; give a run or checkpoint folder, a .pth file or a hub id")
    if file.suffix == ".safetensors":
        raise InputError(f"{file} is a part of a checkpoint folder; give the folder, with config.json in it")
    content = load_pth(file)
    if not isinstance(content, Mapping):
        raise InputError(f"{file} holds a {type(content).__name__} instead of named weights; give a detector's file")
    rest = dict(cast(Mapping[str, Any], content))
    weights: Any = rest
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(rest.get(key), Mapping):
            weights = rest.pop(key)
            break
    else:
        rest = {}
    given = {name: value for name, value in weights.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if len(given) < len(weights):
        raise InputError(f"{file} holds other things than weights; give a file of Conditional DETR or DETR")
    state = read_state(given, file)
    if state.layout == "official":
        return from_official(state, rest, dilation, file)
    if state.layout == "mmdetection":
        return from_mmdetection(state, rest, dilation, file)
    raise InputError(f"{file} is a part of a Hugging Face checkpoint; give its folder, with config.json in it")


def _is_hub_id(text: str) -> bool:
    """Of the form owner/name, where no folder is called like the owner."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None and not Path(text).parent.exists()


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
        if not (folder / "model.safetensors").exists():
            folder = Path(snapshot_download(hub_id, allow_patterns=[*_HUB_FILES, "pytorch_model.bin"]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{hub_id} is no file or folder here, and can't be fetched from the Hugging Face hub ({reason}); "
            f"check the path or the name"
        ) from error
    return folder
