"""Open checkpoints of every format. The format is recognized by the content of the file or folder."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from conditional_detr.checkpoints.architecture import build_checkpoint
from conditional_detr.checkpoints.category_names import GivenNames, read_names, with_names
from conditional_detr.checkpoints.checkpoint import Checkpoint, Given, Parsed
from conditional_detr.checkpoints.folders import checkpoint_folder
from conditional_detr.checkpoints.formats import load
from conditional_detr.checkpoints.safe_load import load_weights
from conditional_detr.checkpoints.starters import starter_folder
from conditional_detr.checkpoints.state import read_state
from conditional_detr.errors import CheckpointError
from conditional_detr.exports import refuse_export
from conditional_detr.input_size import BoxFrame

_HUB_FILES = ["config.json", "preprocessor_config.json", "processor_config.json"]


def open_checkpoint(
    source: str | Path,
    dilation: bool | None = None,
    boxes: BoxFrame | None = None,
    *,
    names: GivenNames | None = None,
    headless: bool = False,
    revision: str | None = None,
) -> Checkpoint:
    """Open the model in a run folder (its best), a checkpoint folder, a ``.pth`` file, on the Hugging Face hub, or a starter.

    source: a path, or the id of a model on the hub. dilation: True for a DC5 model, for files that do not say so themselves. boxes: what its boxes are relative to, which
    overrides the file. names: names of its categories, which override those of the file (``read_names``). headless: also
    open weights without a class head, to start training from; the checkpoint has no categories then. revision: branch, tag or
    commit of a hub id, which may also be written owner/name@revision. Raises ``InputError`` naming what is wrong.
    """
    refuse_export(source)
    named = None if names is None else read_names(names)  # fails before a large file is read
    path = starter_folder(str(source)) or Path(source)
    try:
        if not path.exists() and _is_hub_id(str(source)):
            path = _download(str(source), revision)
        elif revision is not None:
            raise CheckpointError(
                f"{source} is a file or folder here, which has no revisions; leave revision {revision!r} out",
                argument="revision",
            )
        parsed = _read_folder(path, boxes) if path.is_dir() else _read_file(path, boxes)
    except OSError as error:
        raise CheckpointError(f"{source} can't be read ({error.strerror or error}); check the path") from error
    checkpoint = build_checkpoint(parsed, dilation, source, headless)
    return checkpoint if named is None else with_names(checkpoint, named, source)


def _read_folder(path: Path, boxes: BoxFrame | None) -> Parsed:
    folder, format_ = checkpoint_folder(path)
    return load(format_).read(Given(folder, boxes=boxes))


def _read_file(file: Path, boxes: BoxFrame | None) -> Parsed:
    if not file.exists():
        raise CheckpointError(f"{file} does not exist; give a run or checkpoint folder, a .pth file or a hub id")
    if file.suffix == ".safetensors" and file.with_name("config.json").exists():
        raise CheckpointError(f"{file} is part of a checkpoint folder; give the folder, with config.json in it")
    content = load_weights(file)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file} holds a {type(content).__name__} instead of named weights; give a detector's file"
        )
    state = read_state(cast("Mapping[Any, Any]", content), file)
    parsed = load(state.format).read(Given(file, state))
    return parsed if boxes is None else parsed._replace(input_size=replace(parsed.input_size, boxes=boxes))


def _is_hub_id(text: str) -> bool:
    """Return True for owner/name and owner/name@revision, unless there is a folder named like the owner."""
    return (
        re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", text) is not None
        and not Path(text.partition("@")[0]).parent.exists()
    )


def _download(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    hub_id, _, written = source.partition("@")
    if written and revision not in (None, written):
        raise CheckpointError(f"{source} and revision {revision!r} differ; leave one of them out", argument="revision")
    revision = revision or written or None

    def download(*weights: str) -> Path:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*_HUB_FILES, *weights]))

    try:
        folder = download("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
        if not any(folder.glob("model*.safetensors")):
            folder = download("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{source} is not a local file or folder, and can't be downloaded from the Hugging Face hub ({reason}); "
            f"check the path or the name"
        ) from error
    return folder
