"""Unpickle weights without running code.

A pickle names functions and calls them, so an untrusted one can do anything. The unpickler here builds tensors, plain
containers and ``argparse.Namespace``, and nothing else. Objects that weights do not need (mmengine's logs, NumPy's
scalars, OmegaConf's settings) become empty stand-ins. Anything else is refused by its name. Values of the file are checked before any function of
torch gets them.
"""

import argparse
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

UnpicklingError = pickle.UnpicklingError

_STAND_INS = re.compile(
    r"(mmengine|mmcv|mmdet|lightning|lightning_fabric|pytorch_lightning|omegaconf|numpy|pathlib|datetime|typing)(\.\w+)+"
    r"|_codecs\.encode|copyreg\._reconstructor|collections\.(Counter|defaultdict|deque)"
    r"|builtins\.(getattr|object|set|frozenset|slice|complex|range|list|dict|tuple|int|float|str|bytes|bytearray|bool)"
)
_DTYPES = re.compile(r"torch\.(bool|b?float\d\w*|u?int\d+|complex\d+)")

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Untyped": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}
_STORAGE = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage")


_MANY = 2**48  # elements; no tensor has as many
_DIMENSIONS = 64  # maximum of torch


class _StorageType:
    """Stand-in for a class such as ``torch.FloatStorage``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Storage:
    """Storage of a file: its memory, element type and number of elements."""

    def __init__(self, memory: torch.UntypedStorage, dtype: torch.dtype, elements: int) -> None:
        self.memory, self.dtype, self.elements = memory, dtype, elements


class StorageId(NamedTuple):
    """Description of a storage in a pickle."""

    key: str
    dtype: torch.dtype
    elements: int

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    """Return a tensor that is a view within its storage. rest: requires_grad, hooks, and optional flags."""
    requires_grad, _, flags = (*rest, None) if len(rest) == 2 else rest
    numbers = [offset, *size, *stride]
    if type(storage) is not _Storage or len(size) != len(stride) or not all(type(n) is int for n in numbers):
        raise UnpicklingError("a tensor is not described by numbers")
    many = max(*numbers, math.prod(count or 1 for count in size))
    if min(numbers) < 0 or many >= _MANY or len(size) > _DIMENSIONS or flags:
        raise UnpicklingError("a tensor has a size that none has")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if (last >= storage.elements) if math.prod(size) else (offset > storage.elements):
        raise UnpicklingError("a tensor is larger than its storage")
    tensor = torch.empty(0, dtype=storage.dtype).set_(storage.memory, offset, size, stride)
    return tensor.requires_grad_(requires_grad is True)


def _parameter(data: Tensor, requires_grad: bool, *_: Any) -> nn.Parameter:
    if type(data) is not Tensor:
        raise UnpicklingError("a parameter is no tensor")
    return nn.Parameter(data, requires_grad is True)


class _StandIn:
    """Stand-in for an object that weights do not need. It accepts any arguments and ignores them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


def _ordered_dict(*args: Any) -> "OrderedDict[str, Any]":
    if args:
        raise pickle.UnpicklingError("entries of an OrderedDict belong after it")
    return OrderedDict()


class _Namespace(argparse.Namespace):
    """Replacement for ``argparse.Namespace``, so that a pickle never gets the class itself."""

    def __new__(cls, *args: Any) -> "_Namespace":
        return object.__new__(cls)

    def __init__(self, *args: Any) -> None:
        super().__init__()


_BUILT: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "argparse.Namespace": _Namespace,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}


class Refused(Exception):  # noqa: N818
    """A pickle names something that is not allowed. The message is that name."""


# The unpickler in Python. The one in C allocates memory as the file says, and offers no control over keys.
_Base = cast(Any, pickle)._Unpickler


class Unpickler(_Base):
    """Unpickler that calls only the functions in ``_BUILT`` and stand-ins. Keys and members of sets must be text or numbers.

    stream: has ``read`` and ``readline``. storage: returns the memory of a storage, with at least the bytes of its id.
    """

    def __init__(self, stream: Any, storage: Callable[[StorageId], torch.UntypedStorage]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.")
        if full in _BUILT:
            return _BUILT[full]
        if _DTYPES.fullmatch(full):
            return getattr(torch, name)
        storage = _STORAGE.fullmatch(full)
        if storage and storage[1] in _STORAGES:
            return _StorageType(_STORAGES[storage[1]])
        if _STAND_INS.fullmatch(full):
            return type(name.rpartition(".")[2], (_StandIn,), {})
        raise Refused(ascii(full[:100])[1:-1])

    def load_call(self) -> None:  # REDUCE and NEWOBJ
        args, called = self.stack.pop(), self.stack.pop()
        allowed = any(called is each for each in _BUILT.values())
        if not isinstance(args, tuple) or not (allowed or (isinstance(called, type) and issubclass(called, _StandIn))):
            raise Refused(f"an object of {type(called).__name__}")
        self.append(called(*cast("tuple[Any, ...]", args)))

    def load_build(self) -> None:
        state, instance = self.stack.pop(), self.stack[-1]
        if type(instance) is _Namespace:
            vars(instance).update({str(key): value for key, value in state.items() if isinstance(key, str)})
        elif not isinstance(instance, (_StandIn, OrderedDict)):
            raise Refused(f"to set attributes of {type(cast(object, instance)).__name__}")

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target += items
        elif not isinstance(target, _StandIn):
            raise Refused(f"to append to {type(cast(object, target)).__name__}")

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
            raise Refused(f"to set entries of {type(cast(object, target)).__name__}")

    def load_additems(self) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        _check_keys(items)
        if type(target) is set:
            target.update(items)
        elif not isinstance(target, _StandIn):
            raise Refused(f"to add to {type(cast(object, target)).__name__}")

    def load_binpersid(self) -> None:
        """Load a storage: ("storage", type, key, device, elements), followed by None in legacy files."""
        pid = self.stack.pop()
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] not in ("storage", b"storage"):
            raise Refused("a module")
        storage_type, key, _, elements, *views = pid[1:]
        if type(storage_type) is not _StorageType or type(key) is not str or type(elements) is not int:
            raise UnpicklingError("a storage is not described as torch does")
        if elements < 0 or views not in ([], [None]):
            raise UnpicklingError("a storage has a size that none has")
        dtype = storage_type.dtype
        self.append(_Storage(self._storage(StorageId(key, dtype, elements)), dtype, elements))

    dispatch = {
        code: method
        for code, method in _Base.dispatch.items()
        if bytes([code])
        not in {
            *(pickle.PERSID, pickle.INST, pickle.OBJ, pickle.DICT, pickle.EXT1, pickle.EXT2, pickle.EXT4),
            *(pickle.FROZENSET, pickle.NEWOBJ_EX, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.BYTEARRAY8),
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
    """Allow only keys that are hashed in constant time. A small file can hold astronomically many nested tuples."""
    if not all(isinstance(key, (str, bytes, int, float)) for key in keys):
        raise pickle.UnpicklingError("a key is neither text nor a number")
