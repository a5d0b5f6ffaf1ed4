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


def load_pth(file: Path) -> Any:
    """Return the content of a ``.pth`` file that ``torch.save`` wrote, in the zip or the legacy format.

    Tensors that share memory in the file share it here. Raises ``CheckpointError`` for a file that can't be read, is no such
    file, names something that is not allowed, or claims to hold more than it does.
    """
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == 0:
                raise CheckpointError(f"{file} is empty; download it again")
            return _read(stream, size, file)
    except OSError as error:
        raise CheckpointError(f"{file} can't be read ({error.strerror or error}); check the path") from error


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file. The library checks the header against the size of the file.

    Raises ``CheckpointError`` for a file that can't be read.
    """
    try:
        open_regular(file).close()
        return load_file(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} does not exist; check the path") from error
    except Exception as error:  # damaged bytes can end in any of them
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file} can't be read ({reason}); copy or download it again") from error


def _read(stream: BufferedReader, size: int, file: Path) -> Any:
    is_zip = stream.read(len(START)) == START
    stream.seek(0)
    try:
        content = read_archive(stream, size) if is_zip else read_legacy(stream, size)
        _check_size(content, size)
    except Unfit as error:
        raise CheckpointError(f"{file} {error}") from error
    except Refused as error:
        raise CheckpointError(
            f"{file} wants to call {error}, which no file of weights needs; nothing was run: take it from another source"
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
