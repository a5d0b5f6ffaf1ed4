"""Read the files that ``torch.save`` wrote before version 1.6, and still writes without its zip format.

A file holds five pickles: a magic number, a version, the kind of machine, the object, and the keys of its storages. The storages
follow in the order of the keys. Each is a number of elements and its bytes.
"""

import struct
import sys
from io import BufferedReader
from typing import Any

import torch

from conditional_detr.checkpoints.archive import read_into
from conditional_detr.checkpoints.unpickling import StorageId, Unpickler, UnpicklingError

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


class _Bounded:
    """Stream that limits reads to the size of the file, because ``read`` allocates memory first."""

    def __init__(self, stream: BufferedReader, size: int) -> None:
        self.readline = stream.readline
        self._stream, self._size = stream, size

    def read(self, count: int) -> bytes:
        return self._stream.read(min(count, self._size))


class _Storages:
    """Memory of the storages that a pickle names. It is filled later, and is limited to the size of the file."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._found: dict[str, tuple[StorageId, torch.Tensor]] = {}

    def __call__(self, id_: StorageId) -> torch.UntypedStorage:
        if id_.key not in self._found:
            self._left -= id_.bytes
            if self._left < 0:
                raise UnpicklingError("storages are larger than the file")
            self._found[id_.key] = id_, torch.empty(id_.bytes, dtype=torch.uint8)
        known, memory = self._found[id_.key]
        if known != id_:
            raise UnpicklingError("a storage is described in two ways")
        return memory.untyped_storage()

    def fill(self, keys: Any, stream: BufferedReader) -> None:
        if type(keys) is not list or sorted(keys) != sorted(self._found):
            raise UnpicklingError("not every storage follows once")
        for key in keys:
            id_, memory = self._found[key]
            (elements,) = struct.unpack("<q", stream.read(8))
            if elements != id_.elements:
                raise UnpicklingError("a storage has another size than its pickle says")
            read_into(memory, stream)


def read_legacy(stream: BufferedReader, size: int) -> object:
    """Return the object in a file of ``size`` bytes. Raises ``Refused`` or any exception, as ``read_archive`` does."""
    bounded: Any = _Bounded(stream, size)
    storages = _Storages(size)

    def load() -> Any:
        return Unpickler(bounded, storages).load()

    if load() != _MAGIC or load() != _VERSION:
        raise UnpicklingError("no file of torch.save")
    if load().get("little_endian", True) is not (sys.byteorder == "little"):
        raise UnpicklingError("saved on a machine with other numbers")
    content = load()
    storages.fill(load(), stream)
    return content
