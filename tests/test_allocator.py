"""Freed memory is kept: allocating the same blocks again causes no page faults."""

import ctypes
import subprocess
import sys

import pytest

PAGES = """
import ctypes, resource
from conditional_detr.allocator import keep_freed_memory

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def pages(size=20 << 20):
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [library.malloc(size) for _ in range(8)]
        for block in blocks:
            library.memset(block, 1, size)
        for block in reversed(blocks):
            library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(pages())
keep_freed_memory()
print(pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc on Linux has the setting")
def test_freed_memory_is_kept():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no mallopt")
    run = subprocess.run([sys.executable, "-c", PAGES], check=True, capture_output=True, text=True)
    given, kept = map(int, run.stdout.split())
    if given < 1000:
        pytest.skip("this system keeps freed memory by default, or counts no page faults")
    assert kept < 10
