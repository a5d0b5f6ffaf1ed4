"""How the C library hands out memory, in which tensors on a CPU live."""

import ctypes
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Keep memory that is freed for what comes next, instead of giving it back to the system; for the whole process.

    The C library otherwise returns what is free at the end of its memory as soon as that is 64 MiB, and asks for it
    again, which the system then fills with zeros, page by page. Blocks of more than 32 MiB are returned as before. glibc on
    Linux only; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most it takes; smaller blocks come from what is kept
        mallopt(_M_TRIM_THRESHOLD, -1)
