"""Reading files of weights without running what they say.

A pickle names callables and calls them, so a file from elsewhere can do anything. The unpickler here builds tensors, plain
containers and ``argparse.Namespace``, and nothing else: objects that the weights don't need (mmengine's logs, numpy's
scalars) become empty stand-ins, and a file that names anything else is refused. Containers and tensors are read by torch.
"""

import argparse
import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from conditional_detr.errors import CheckpointError

_STAND_INS = re.compile(
    r"(mmengine|mmcv|mmdet|numpy|pathlib|datetime)(\.\w+)+|_codecs\.encode|copyreg\._reconstructor"
    r"|collections\.(Counter|defaultdict|deque)"
    r"|builtins\.(getattr|object|set|frozenset|slice|complex|range|list|dict|tuple|int|float|str|bytes|bytearray|bool)"
)
_DTYPES = re.compile(r"torch\.(bool|b?float\d\w*|u?int\d+|complex\d+)")
_VISITS = 1_000_000  # of entries in containers; shared ones count each time


class _StandIn:
    """In the place of an object that nothing here needs: takes anything, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


def _ordered_dict(*args: Any) -> "OrderedDict[str, Any]":
    if args:
        raise pickle.UnpicklingError("entries of an OrderedDict belong after it")
    return OrderedDict()


class _Namespace(argparse.Namespace):
    """What ``argparse.Namespace`` becomes: the class itself stays out of reach."""

    def __new__(cls, *args: Any) -> "_Namespace":
        return object.__new__(cls)

    def __init__(self, *args: Any) -> None:
        super().__init__()


_BUILT: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "argparse.Namespace": _Namespace,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_tensor_v2": cast(Any, torch)._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": cast(Any, torch)._utils._rebuild_parameter,
}


class _Refused(Exception):  # noqa: N818
    """What a pickle named."""


# The one in Python: the one in C trusts numbers in the file with memory, and can't be told what a key may be.
_Base = cast(Any, pickle)._Unpickler


class _Unpickler(_Base):
    """Calls what is in ``_BUILT`` and stand-ins only; keys and members of sets are text or numbers."""

    storage_sizes: Mapping[str, int] | None = None  # bytes by key, in a zip file
    file_size = 0

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.")
        if full in _BUILT:
            return _BUILT[full]
        if _DTYPES.fullmatch(full):
            return getattr(torch, name)
        if _STAND_INS.fullmatch(full):
            return type(name.rpartition(".")[2], (_StandIn,), {})
        raise _Refused(full)

    def load_call(self) -> None:  # REDUCE and NEWOBJ
        args, called = self.stack.pop(), self.stack.pop()
        allowed = any(called is each for each in _BUILT.values())
        if not isinstance(args, tuple) or not (allowed or (isinstance(called, type) and issubclass(called, _StandIn))):
            raise _Refused(f"an object of {type(called).__name__}")
        self.append(called(*cast("tuple[Any, ...]", args)))

    def load_build(self) -> None:
        state, instance = self.stack.pop(), self.stack[-1]
        if type(instance) is _Namespace:
            vars(instance).update({str(key): value for key, value in state.items() if isinstance(key, str)})
        elif not isinstance(instance, (_StandIn, OrderedDict)):
            raise _Refused(f"to set attributes of {type(cast(object, instance)).__name__}")

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target += items
        elif not isinstance(target, _StandIn):
            raise _Refused(f"to append to {type(cast(object, target)).__name__}")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        keys = items[::2]
        if type(target) in (dict, OrderedDict):
            _check_keys(keys)
            target.update(zip(keys, items[1::2], strict=True))
        elif not isinstance(target, _StandIn):
            raise _Refused(f"to set entries of {type(cast(object, target)).__name__}")

    def load_additems(self) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        _check_keys(items)
        if type(target) is set:
            target.update(items)
        elif not isinstance(target, _StandIn):
            raise _Refused(f"to add to {type(cast(object, target)).__name__}")

    def load_binpersid(self) -> None:
        """A storage: ("storage", type, key, device, elements, ...), as large as what the file holds."""
        pid = self.stack.pop()
        kind, storage_type, key, device, elements, *_ = pid
        if type(pid) is not tuple or kind not in ("storage", b"storage"):
            raise _Refused("a module")
        _check_keys([key, device])
        bytes_ = elements * cast(Any, torch)._utils._element_size(storage_type.dtype)
        limit = self.file_size if self.storage_sizes is None else self.storage_sizes.get(str(key), 0)
        if type(elements) is not int or not 0 <= bytes_ <= limit:
            raise pickle.UnpicklingError("a storage is larger than what the file holds of it")
        self.append(self.persistent_load(pid))

    dispatch = {
        code: method
        for code, method in _Base.dispatch.items()
        if bytes([code])
        not in {
            *(pickle.PERSID, pickle.INST, pickle.OBJ, pickle.DICT, pickle.EXT1, pickle.EXT2, pickle.EXT4),
            *(pickle.FROZENSET, pickle.NEWOBJ_EX, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
        }
    } | {
        pickle.REDUCE[0]: load_call,
        pickle.NEWOBJ[0]: load_call,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.BINPERSID[0]: load_binpersid,
    }


def _check_keys(keys: list[Any]) -> None:
    """Only what hashes at once; of nested tuples a small file can hold astronomically many."""
    if not all(isinstance(key, (str, bytes, int, float)) for key in keys):
        raise pickle.UnpicklingError("a key is neither text nor a number")


def load_pth(file: Path) -> Any:
    """The content of a ``.pth`` file, zip or legacy.

    Raises ``CheckpointError`` for a file that can't be read, is no such file, names something that is not allowed, or
    claims to hold more than it does.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"  # as torch sees it
    except OSError as error:
        raise CheckpointError(f"{file} can't be read ({error.strerror or error}); check the path") from error
    if size == 0:
        raise CheckpointError(f"{file} is empty; download it again")
    unpickler = type("Unpickler", (_Unpickler,), {"file_size": size})
    module = SimpleNamespace(Unpickler=unpickler, load=lambda stream, **options: unpickler(stream, **options).load())
    module.__name__ = "conditional_detr"
    try:
        if is_zip:
            unpickler.storage_sizes = _check_archive(file)
            content: Any = torch.load(file, map_location="cpu", weights_only=False, pickle_module=module)
        else:  # without a file behind it, torch does not try the tar format of its first releases
            stream = io.BytesIO(file.read_bytes())
            content = torch.load(stream, map_location="cpu", weights_only=False, pickle_module=module)
        _check_size(content, file)
    except CheckpointError:
        raise
    except _Refused as error:
        raise CheckpointError(
            f"{file} wants to call {error}, which no file of weights needs; nothing was run: take it from another source"
        ) from error
    except Exception as error:  # damaged bytes can end in any of them
        raise CheckpointError(f"{file} is damaged or no .pth file of weights; download it again") from error
    return content


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, whose header the library checks against the file's size.

    Raises ``CheckpointError`` for a file that can't be read.
    """
    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} does not exist; check the path") from error
    except Exception as error:  # damaged bytes can end in any of them
        raise CheckpointError(f"{file} can't be read ({error}); copy or download it again") from error


def _check_archive(file: Path) -> dict[str, int]:
    """Bytes of every storage, by key. Raises ``CheckpointError`` for an archive that torch.save did not write."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    names = [entry.filename.casefold() for entry in entries]  # torch does not tell cases apart
    pickles = [name for name in names if name.endswith(".pkl")]
    if len(pickles) != 1 or not pickles[0].endswith("/data.pkl") or len(set(names)) < len(names):
        raise CheckpointError(f"{file} is a zip file but no .pth file of weights; give one that torch.save wrote")
    # torch stores without compression; anything else could unfold to any size.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{file} is compressed, which files of weights are not; take it from another source")
    if sum(entry.file_size for entry in entries) > file.stat().st_size:
        raise CheckpointError(f"{file} claims entries larger than the file; download it again")
    return {entry.filename.rpartition("/data/")[2]: entry.file_size for entry in entries}


def _check_size(content: Any, file: Path) -> None:
    """Raise ``CheckpointError`` when the content unfolds to more than the file can hold: one part shared many times."""
    size = file.stat().st_size
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
            raise CheckpointError(f"{file} claims to hold more than its size; download it again")
