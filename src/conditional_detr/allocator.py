"""Memory allocation of the C library, which holds the tensors on a CPU."""

import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Keep freed memory for reuse instead of returning it to the system, in the whole process.

    By default the C library returns the free memory at the end of its heap as soon as it reaches 64 MiB. When it requests
    that memory again, the system fills it with zeros page by page. Blocks of more than 32 MiB are returned as before. Takes
    effect with glibc on Linux; a no-op elsewhere.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # largest allowed value; smaller blocks are taken from kept memory
        mallopt(_M_TRIM_THRESHOLD, -1)
