"""Images in tar files, such as those of WebDataset. The address of a member is ``TAR!MEMBER``."""

import errno
import os
import tarfile
import threading
from functools import lru_cache

from conditional_detr.batch import storage
from conditional_detr.data.images import SUFFIXES
from conditional_detr.errors import DataError

SUFFIX = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BETWEEN = f"{SUFFIX}!"
_lock = threading.Lock()


def is_member(address: str) -> bool:
    return _BETWEEN in address


def image_members(tar: str) -> list[str]:
    """Return the addresses of the images in a tar. Raises ``DataError`` for a file that is none or is damaged."""
    return [f"{tar}!{name}" for name in _places(tar) if os.path.splitext(name)[1].lower() in SUFFIXES]


def read_member(address: str) -> bytes:
    """Return the bytes of a member. Raises ``KeyError`` when the tar does not hold it."""
    before, _, name = address.partition(_BETWEEN)
    tar = before + SUFFIX
    with _lock:  # threads that read ahead would otherwise search the same tar at the same time
        start, size = _places(tar)[name]
    return storage.read(tar, start, start + size)


@lru_cache(maxsize=4)  # images are read in the order of their addresses, so those of a tar follow each other
def _places(tar: str) -> dict[str, tuple[int, int]]:
    """Return where the bytes of each file in a tar are: start and length. The tar is read once, from header to header."""
    places: dict[str, tuple[int, int]] = {}
    try:
        with storage.opened(tar) as file, tarfile.open(fileobj=file, mode="r:") as opened:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            for member in opened:
                if member.isreg():
                    if member.issparse() or not 0 <= member.size <= end - member.offset_data:
                        raise tarfile.TarError(f"{member.name} is sparse, or longer than the file")
                    if member.name in places:
                        raise tarfile.TarError(f"it has two files {member.name}")
                    places[member.name] = member.offset_data, member.size
                # It keeps all headers otherwise, which take ten times the memory.
                opened.members = []  # pyright: ignore[reportAttributeAccessIssue]
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:  # headers may hold any numbers
        raise DataError(f"{tar} is damaged or is no tar without compression ({error}); replace it") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a place before the start of the file
            raise
        raise DataError(f"{tar} is damaged: a file in it has an impossible size; replace it") from error
    return places
