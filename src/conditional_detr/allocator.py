"""How the C library hands out memory, in which tensors on a CPU live."""

import ctypes
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Keep memory that is freed for what comes next, instead of giving it back to the system; for the whole process.

    Of large tensors the C library otherwise returns every page and asks for it again, which the system then fills with
    zeros: half a million pages for one prediction. glibc on Linux only; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
