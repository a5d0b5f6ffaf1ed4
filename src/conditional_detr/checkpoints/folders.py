"""Find the checkpoint in a folder, or say what the folder holds instead."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from conditional_detr.checkpoints.formats import FORMATS, load
from conditional_detr.errors import CheckpointError

_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_DEEPEST, _MOST = 3, 2000  # folders below the given one, and entries, that are looked at


def checkpoint_folder(path: Path) -> tuple[Path, str]:
    """Return the checkpoint folder at a path, and its format: the folder itself, or the best one of a run.

    Raises ``CheckpointError`` saying what the folder holds when there is none.
    """
    for folder in (path, path / "model", path / "model_last"):
        for name in FORMATS:
            if _marks(name, folder):
                return folder, name
    if (path / "config.yaml").is_file():
        raise CheckpointError(f"run {path} has no checkpoint yet: it writes the first one after its first evaluation")
    raise CheckpointError(f"{path} holds neither config.json nor model/config.json; {_remedy(path)}")


def _marks(name: str, folder: Path) -> bool:
    marker = load(name).MARKER
    return marker is not None and (folder / marker).is_file()


def _remedy(path: Path) -> str:
    """Say what to give instead of a folder without a checkpoint."""
    newest = path / "last_checkpoint"  # where MMDetection writes the path of its newest file
    if newest.is_file():
        text = newest.read_text(encoding="utf-8", errors="replace").strip()
        if (file := path / Path(text).name).is_file():
            return f"it is a work_dir of MMDetection: give a file in it, such as {file}"
    below = list(islice(_below(path), _MOST))
    folders = [
        each for each in below if any(_marks(name, each) for name in FORMATS) or (each / "config.yaml").is_file()
    ]
    files = [each for each in below if each.suffix in _SUFFIXES and each.is_file()]
    if folders:
        return f"give one of the folders in it, such as {_some(folders)}"
    if files:
        return (
            f"give a file of weights in it, such as {_some(files)}" if len(files) > 1 else f"give the file {files[0]}"
        )
    names = sorted(each.name for each in path.iterdir())
    more = f", ... ({len(names)} in all)" if len(names) > 3 else ""
    return f"give a run folder or a checkpoint folder (it holds {', '.join(names[:3]) or 'nothing'}{more})"


def _some(paths: list[Path]) -> str:
    """Name the newest three paths."""
    newest = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
    return ", ".join(str(path) for path in newest[:3])


def _below(path: Path) -> Iterator[Path]:
    """Yield files and folders below a folder, nearest first in every branch."""
    for parent, folders, files in os.walk(path):
        if len(Path(parent).relative_to(path).parts) >= _DEEPEST:
            folders.clear()
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        yield from (Path(parent) / each for each in (*folders, *sorted(files)))
