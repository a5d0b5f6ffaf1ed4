"""Open checkpoints of every format. The format is recognized by the content of the file or folder."""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from conditional_detr.checkpoints.architecture import build_checkpoint
from conditional_detr.checkpoints.checkpoint import Checkpoint, Given, Parsed
from conditional_detr.checkpoints.formats import FORMATS, load
from conditional_detr.checkpoints.safe_load import load_pth
from conditional_detr.checkpoints.state import read_state
from conditional_detr.errors import CheckpointError, InputError
from conditional_detr.record import BoxFrame

_HUB_FILES = ["config.json", "preprocessor_config.json", "model.safetensors"]


def open_checkpoint(source: str | Path, dilation: bool | None = None, boxes: BoxFrame | None = None) -> Checkpoint:
    """Open the model in a run folder (its best), a checkpoint folder, a ``.pth`` file, or on the Hugging Face hub.

    dilation: True for a DC5 model, for files that do not say so themselves. boxes: what its boxes are relative to, which
    overrides the file. Raises ``InputError`` naming what is wrong.
    """
    path = Path(source)
    try:
        if not path.exists() and _is_hub_id(str(source)):
            path = _download(str(source))
        parsed = _read_folder(path, boxes) if path.is_dir() else _read_file(path, boxes)
    except InputError:
        raise
    except OSError as error:
        raise CheckpointError(f"{source} can't be read ({error.strerror or error}); check the path") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Inconsistent contents of the file. The code below works on checked values, so its errors would be bugs.
        reason = reprlib.repr(error)
        raise CheckpointError(
            f"{source} is damaged: its contents are inconsistent ({reason}); copy or download it again"
        ) from error
    return build_checkpoint(parsed, dilation, source)


def _read_folder(path: Path, boxes: BoxFrame | None) -> Parsed:
    folder = checkpoint_folder(path)
    name = next(name for name in FORMATS if _marks(name, folder))
    return load(name).read(Given(folder, boxes=boxes))


def _marks(name: str, folder: Path) -> bool:
    marker = load(name).MARKER
    return marker is not None and (folder / marker).is_file()


def checkpoint_folder(path: Path) -> Path:
    """Return the checkpoint folder at a path: itself, or the best one of a run. Raises ``CheckpointError`` without one."""
    for folder in (path, path / "model", path / "model_last"):
        if any(_marks(name, folder) for name in FORMATS):
            return folder
    if (path / "config.yaml").is_file():
        raise CheckpointError(f"run {path} has no checkpoint yet: it writes the first one after its first evaluation")
    raise CheckpointError(
        f"{path} holds neither config.json nor model/config.json; give a run folder or a checkpoint folder"
    )


def _read_file(file: Path, boxes: BoxFrame | None) -> Parsed:
    if not file.exists():
        raise CheckpointError(f"{file} does not exist; give a run or checkpoint folder, a .pth file or a hub id")
    if file.suffix == ".safetensors":
        raise CheckpointError(f"{file} is part of a checkpoint folder; give the folder, with config.json in it")
    content = load_pth(file)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file} holds a {type(content).__name__} instead of named weights; give a detector's file"
        )
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
        raise CheckpointError(f"{file} holds entries that are not weights; give a file of Conditional DETR or DETR")
    state = read_state(given, file)
    parsed = load(state.format).read(Given(file, state, rest))
    return parsed if boxes is None else parsed._replace(input_size=replace(parsed.input_size, boxes=boxes))


def _is_hub_id(text: str) -> bool:
    """Return True for a text of the form owner/name, unless there is a folder named like the owner."""
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
        raise CheckpointError(
            f"{hub_id} is not a local file or folder, and can't be downloaded from the Hugging Face hub ({reason}); "
            f"check the path or the name"
        ) from error
    return folder
