"""Read files of weights without running code in them.

One reader finds the parts of a file, checks them and reads them. torch never gets a file, because it has several readers. They
can see different contents in one file, and one of them runs code (TorchScript).
"""

import argparse
import os
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file
from torch import Tensor

from conditional_detr.checkpoints.archive import START, Unfit, read_archive
from conditional_detr.checkpoints.legacy import read_legacy
from conditional_detr.checkpoints.unpickling import Refused
from conditional_detr.errors import CheckpointError
from conditional_detr.files import open_regular

_VISITS = 1_000_000  # entries in containers; shared ones count each time


def load_weights(file: Path) -> Any:
    """Return the content of a ``.pth`` or ``.safetensors`` file. The content decides, whatever the name.

    Raises ``CheckpointError`` as ``load_pth`` and ``load_safetensors`` do.
    """
    start = _start(file)
    pickled = start.startswith((START, b"\x80"))
    if start[8:9] == b"{" or (file.suffix == ".safetensors" and not pickled):
        return load_safetensors(file)
    return load_pth(file)


def load_pth(file: Path) -> Any:
    """Return the content of a ``.pth`` file that ``torch.save`` wrote, in the zip or the legacy format.

    Tensors that share memory in the file share it here. Raises ``CheckpointError`` for a file that can't be read, is no such
    file, names something that is not allowed, or claims to hold more than it does.
    """
    _start(file)
    try:
        with open_regular(file) as stream:
            return _read(stream, os.fstat(stream.fileno()).st_size, file)
    except OSError as error:
        raise CheckpointError(f"{file} can't be read ({error.strerror or error}); check the path") from error


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file. The library checks the header against the size of the file.

    Raises ``CheckpointError`` for a file that can't be read.
    """
    _start(file)
    try:
        return load_file(file)
    except Exception as error:  # damaged bytes can end in any of them
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file} can't be read ({reason}); copy or download it again") from error


def _start(file: Path) -> bytes:
    """Return the first bytes of a file. Raises ``CheckpointError`` when they can't be those of weights."""
    try:
        with open_regular(file) as stream:
            start = stream.read(512)
    except OSError as error:
        raise CheckpointError(f"{file} can't be read ({error.strerror or error}); check the path") from error
    if not start:
        raise CheckpointError(f"{file} is empty; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file} is a Git LFS pointer, not the weights themselves; run: git lfs pull")
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(f"{file} is a web page, not weights; download the file that the page is about")
    return start


def _read(stream: BufferedReader, size: int, file: Path) -> Any:
    is_zip = stream.read(len(START)) == START
    stream.seek(0)
    try:
        content = read_archive(stream, size) if is_zip else read_legacy(stream, size)
        _check_size(content, size)
    except Unfit as error:
        raise CheckpointError(f"{file} {error}") from error
    except Refused as error:
        if str(error).startswith("ultralytics."):
            raise CheckpointError(
                f"{file} holds a model of Ultralytics ({error}), such as YOLO, which was not run; give a Conditional DETR or DETR"
            ) from error
        raise CheckpointError(
            f"{file} wants to call {error}, which no file of weights needs; nothing was run: save the state_dict() of the model "
            f"instead of the model, or take the file from another source"
        ) from error
    except Exception as error:  # damaged bytes can end in any of them
        raise CheckpointError(f"{file} is damaged or no .pth file of weights; download it again") from error
    return content


def _check_size(content: Any, size: int) -> None:
    """Raise ``Unfit`` when content is larger than a file of ``size`` bytes can hold, because parts are shared many times."""
    bytes_ = visits = 0
    todo = [content]
    while todo:
        each = todo.pop()
        visits += 1
        if isinstance(each, Tensor):
            bytes_ += each.numel() * each.element_size()
        elif isinstance(each, dict):
            todo += cast("dict[Any, Any]", each).values()
        elif isinstance(each, argparse.Namespace):
            todo += vars(each).values()
        elif isinstance(each, (list, tuple, set)):
            todo += cast("list[Any]", each)
        if bytes_ > 2 * size or visits + len(todo) > _VISITS:
            raise Unfit("claims to hold more than its size; download it again")
