"""Memory that is freed goes back to the system, also in the blocks that activations are made of."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Blocks of 16 MB are freed in turn with small ones that stay: glibc would keep the large ones' places in its heap.
SCRIPT = """
import ctypes, re
from pathlib import Path
from skinclip.model.allocator import release_large_blocks
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
assert release_large_blocks()

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024

def block(size):
    pointer = libc.malloc(size)
    libc.memset(pointer, 1, size)
    return pointer

libc.free(block(30 * 2**20))  # would raise the size from which blocks are mapped
before = own()
large, small = [], []
for _ in range(8):
    large.append(block(16 * 2**20))
    small.append(block(100_000))
held = own() - before
for pointer in large:
    libc.free(pointer)
print(held, own() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_large_blocks_are_given_back_when_freed() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60).stdout
    held, left = map(int, out.split())
    assert held > 120 * 2**20
    assert left < 10 * 2**20
