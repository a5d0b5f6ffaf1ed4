"""Read the zip archives that ``torch.save`` writes. The entries that are checked are the entries that are read.

An archive has a directory at its end. Zip readers differ in where they look for it, and in whether they trust it or the headers
in front of the entries. An archive is refused unless all ways of reading it agree: the directory lies directly before the end
record and at the offset in that record, entries lie in front of it and do not overlap, and each has the same name and method
in both places.
"""

import io
import struct
import sys
import zipfile
import zlib
from io import BufferedReader
from typing import Any, NamedTuple, cast

import torch

from conditional_detr.checkpoints.unpickling import StorageId, Unpickler, UnpicklingError

START = b"PK\x03\x04"
_END = struct.Struct("<4s4H2LH")  # the end record
_LOCATOR = struct.Struct("<4sLQL")  # where the end record of zip64 is
_END64 = struct.Struct("<4sQ2H2L4Q")
_HEADER = struct.Struct("<4s5H3L2H")  # in front of an entry
_ENCRYPTED, _UTF8 = 0x2041, 0x800  # flags of an entry
_AT_ONCE = 2**24  # bytes


class Unfit(Exception):  # noqa: N818
    """A file that can't be read. The message continues a sentence that begins with the name of the file."""


class _Entry(NamedTuple):
    start: int
    size: int
    crc: int


class _Archive:
    """Entries of an archive, by name."""

    def __init__(self, stream: BufferedReader, size: int) -> None:
        self._stream = stream
        self._directory = _find_directory(stream, size)
        with zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
        _check_names(infos)
        self.entries: dict[str, _Entry] = {}
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise Unfit("has entries that overlap; take it from another source")
            entry = self._locate(info)
            self.entries[info.filename] = entry
            end = entry.start + entry.size

    def _locate(self, info: zipfile.ZipInfo) -> _Entry:
        # torch stores without compression; anything else could unfold to any size.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise Unfit("is compressed, which files of weights are not; take it from another source")
        if info.flag_bits & _ENCRYPTED:
            raise Unfit("is encrypted, which files of weights are not; take it from another source")
        self._stream.seek(info.header_offset)
        header = self._stream.read(_HEADER.size)
        start, _, flags, method, _, _, _, _, _, name_length, extra_length = _HEADER.unpack(header)
        name = self._stream.read(name_length).decode("utf-8" if flags & _UTF8 else "cp437")
        kinds = (flags ^ info.flag_bits) & (_ENCRYPTED | _UTF8)
        if start != START or name != info.filename or method != zipfile.ZIP_STORED or kinds:
            raise Unfit("says different things of an entry in two places; take it from another source")
        entry = _Entry(info.header_offset + _HEADER.size + name_length + extra_length, info.file_size, info.CRC)
        if entry.start + entry.size > self._directory:
            raise Unfit("claims entries larger than the file; download it again")
        return entry

    def read(self, name: str) -> torch.Tensor:
        """Return the bytes of an entry. Raises ``Unfit`` when its checksum is wrong."""
        entry = self.entries[name]
        self._stream.seek(entry.start)
        content = torch.empty(entry.size, dtype=torch.uint8)
        if read_into(content, self._stream) != entry.crc:
            raise Unfit("is damaged: the checksum of a part is wrong; download it again")
        return content


def read_archive(stream: BufferedReader, size: int) -> object:
    """Return the object in an archive of ``size`` bytes.

    Raises ``Unfit`` for an archive that ``torch.save`` did not write, ``Refused`` for a pickle that calls something, and
    any exception for a damaged one.
    """
    archive = _Archive(stream, size)
    pickled = next(name for name in archive.entries if name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    order = (
        archive.read(f"{folder}byteorder").numpy().tobytes() if f"{folder}byteorder" in archive.entries else b"little"
    )
    if order.decode() != sys.byteorder:
        raise Unfit(
            f"was saved on a machine with other numbers ({order[:10]!r}); save it again on this kind of machine"
        )
    memories: dict[str, torch.UntypedStorage] = {}

    def storage(id_: StorageId) -> torch.UntypedStorage:
        name = f"{folder}data/{id_.key}"
        if id_.key not in memories:
            content = archive.read(name) if name in archive.entries else torch.empty(0, dtype=torch.uint8)
            memories[id_.key] = content.untyped_storage()
        if id_.bytes > len(memories[id_.key]):
            raise UnpicklingError("a storage is larger than what the file holds of it")
        return memories[id_.key]

    return Unpickler(io.BytesIO(archive.read(pickled).numpy().tobytes()), storage).load()


def read_into(memory: torch.Tensor, stream: BufferedReader) -> int:
    """Fill a tensor of bytes from the position of ``stream``. Return the CRC-32. Raises ``EOFError``."""
    view = memoryview(cast(Any, memory.numpy()))
    crc = 0
    while len(view) > 0:
        count = stream.readinto(view[:_AT_ONCE])
        if count == 0:
            raise EOFError
        crc = zlib.crc32(view[:count], crc)
        view = view[count:]
    return crc


def _find_directory(stream: BufferedReader, size: int) -> int:
    """Return the offset of the directory. Raises ``Unfit`` when there is more than one way to find it."""

    def record(kind: struct.Struct, end: int) -> tuple[Any, ...] | None:
        stream.seek(max(0, end - kind.size))
        data = stream.read(kind.size)
        return kind.unpack(data) if len(data) == kind.size and end >= kind.size else None

    marks = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
    end = record(_END, size)
    if end is None or end[0] != marks[0]:
        raise Unfit("is damaged or no .pth file of weights: it is a zip file without an end; download it again")
    start = size - _END.size
    length, offset, comment = end[-3:]
    locator = record(_LOCATOR, start)
    agreed = comment == 0
    if locator is not None and locator[0] == marks[1]:
        start -= _LOCATOR.size + _END64.size
        end64 = record(_END64, start + _END64.size)
        agreed = agreed and locator[2] == start and end64 is not None and end64[0] == marks[2]
        length, offset = (0, 0) if end64 is None else end64[-2:]
    if not agreed or offset + length != start:
        raise Unfit("is a zip file with a second directory or other hidden parts; take it from another source")
    return offset


def _check_names(infos: list[zipfile.ZipInfo]) -> None:
    names = [info.filename.casefold() for info in infos]  # torch does not tell cases apart
    pickles = [name for name in names if name.endswith(".pkl")]
    if len(pickles) != 1 or not any(info.filename.endswith("/data.pkl") for info in infos):
        raise Unfit("is a zip file but no .pth file of weights; give one that torch.save wrote")
    if len(set(names)) < len(names) or any(info.filename != info.orig_filename for info in infos):
        raise Unfit(
            "is a zip file but no .pth file of weights: two entries have one name; give one that torch.save wrote"
        )
