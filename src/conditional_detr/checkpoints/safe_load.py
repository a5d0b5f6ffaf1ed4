"""Reading files of weights without running what they say.

A pickle names callables and calls them, so a file from elsewhere can do anything. Here its names are read first; then
torch's restricted unpickler builds tensors, plain containers and ``argparse.Namespace``. Objects of libraries that the
weights don't need (mmengine's logs, numpy's scalars) become empty stand-ins. A file that names anything else is refused.
"""

import argparse
import io
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from conditional_detr.errors import InputError

_BUILT = re.compile(
    r"collections\.(OrderedDict|Counter)|argparse\.Namespace|torch\.(Size|device|\w+Storage|b?float\d+|int\d+)"
    r"|torch\._utils\._rebuild_(tensor_v2|parameter)|torch\.nn\.parameter\.Parameter|torch\.storage\.\w+Storage"
)
_REPLACED = re.compile(
    r"(mmengine|mmcv|mmdet|numpy)(\.\w+)+|builtins\.(getattr|set|slice|complex|range)|_codecs\.encode|pathlib\.\w+"
)
# A legacy file is a row of pickles: magic number, protocol, system, content, names of storages; then their bytes.
_PICKLES = 5


class _StandIn:
    """In the place of an object that nothing here needs: takes anything, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def load_pth(file: Path) -> Any:
    """The content of a ``.pth`` file, zip or legacy.

    Raises ``InputError`` for a file that can't be read, is no such file, names something that is not allowed, or
    claims to hold more than it does.
    """
    try:
        size = file.stat().st_size
        names = _names(file)
    except OSError as error:
        raise InputError(f"{file} can't be read ({error.strerror or error}); check the path") from error
    refused = sorted(name for name in names if not _BUILT.fullmatch(name) and not _REPLACED.fullmatch(name))
    if refused:
        raise InputError(
            f"{file} wants to call {', '.join(refused)}, which no file of weights needs; nothing was run: "
            f"take the file from another source"
        )
    stand_ins = [(type(name.rpartition(".")[2], (_StandIn,), {}), name) for name in names if _REPLACED.fullmatch(name)]
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *stand_ins]):
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can end in any of them
        raise _damaged(file) from error
    for tensor in _tensors(content):
        if tensor.numel() * tensor.element_size() > size:
            raise InputError(f"{file} claims tensors larger than the file; download it again")
    return content


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, whose header the library checks against the file's size.

    Raises ``InputError`` for a file that can't be read.
    """
    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist; check the path") from error
    except Exception as error:  # damaged bytes can end in any of them
        raise InputError(f"{file} can't be read ({error}); copy or download it again") from error


def _damaged(file: Path) -> InputError:
    return InputError(f"{file} is damaged or no .pth file of weights; download it again")


def _names(file: Path) -> set[str]:
    """What the pickles of a file name, as ``module.name``."""
    if file.stat().st_size == 0:
        raise InputError(f"{file} is empty; download it again")
    try:
        if not zipfile.is_zipfile(file):
            with file.open("rb") as stream:
                return _names_of_row(stream)
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
            if not any(name.endswith("/data.pkl") for name in pickles) or len(pickles) > 1:
                raise InputError(f"{file} is a zip file but no .pth file of weights; give one that torch.save wrote")
            # torch stores without compression; anything else could unfold to any size.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise InputError(f"{file} is compressed, which files of weights are not; take it from another source")
            if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
                raise InputError(f"{file} claims entries larger than the file; download it again")
            return _names_in(io.BytesIO(archive.read(pickles[0])))
    except (InputError, OSError):
        raise
    except Exception as error:
        raise _damaged(file) from error


def _names_of_row(stream: io.BufferedReader) -> set[str]:
    found = _names_in(stream)
    for _ in range(_PICKLES - 1):
        try:
            found |= _names_in(stream)
        except Exception:  # no file of torch.save; what it names is worth more than that
            break
    return found


def _names_in(stream: io.BufferedIOBase) -> set[str]:
    """What one pickle names; a name that is put together by the pickle itself counts as "something unnamed"."""
    found: set[str] = set()
    texts: list[str] = []
    for code, argument, _ in pickletools.genops(cast(Any, stream)):
        if code.name in ("GLOBAL", "INST"):
            found.add(str(argument).replace(" ", ".").replace("__builtin__.", "builtins."))
        elif code.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]) if len(texts) > 1 else "something unnamed")
        elif code.name in ("EXT1", "EXT2", "EXT4"):
            found.add("a registered extension")
        elif isinstance(argument, str) and "UNICODE" in code.name:
            texts.append(argument)
    return found


def _tensors(content: Any) -> list[Tensor]:
    """All tensors in nested containers."""
    found: list[Tensor] = []
    todo, seen = [content], set[int]()
    while todo:
        each = todo.pop()
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, (dict, list, tuple, set)) and id(each) not in seen:
            seen.add(id(each))
            todo += (
                list(cast("dict[Any, Any]", each).values()) if isinstance(each, dict) else list(cast("list[Any]", each))
            )
    return found
