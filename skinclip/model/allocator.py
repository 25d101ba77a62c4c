"""Policies for memory: of the C library for what is freed, and of Python's collector for what stays loaded.

On a CPU the former is the difference between a predicted peak and a much higher one.

glibc raises the size from which it maps a block by itself, up to 32 MB, as blocks are freed. The activations of a
language model of billions of parameters stay below that, so they come from the heap, whose holes are never given back:
on a model of 0.3 billion parameters a training step took 4.1 GB instead of 2.7.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8  # glibc's malloc.h
LARGE = 2**20  # bytes


def release_large_blocks() -> bool:
    """Lets the C library map blocks of a megabyte and more, so that they return to the system when they are freed.

    Returns False where the C library is not glibc; nothing is changed then.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE)) and bool(mallopt(M_TRIM_THRESHOLD, LARGE))


def share_arenas() -> bool:
    """Lets all threads of a server share two of glibc's heaps, and hand freed memory back early.

    By default each thread that serves a visitor gets a heap of its own, and what one frees no other uses: after large
    photos 1.8 of 3.0 GB resident were free but kept. To be called before threads are started. Returns False under
    another C library; nothing is changed then.
    """
    if not release_large_blocks():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_ARENA_MAX, 2)) and bool(mallopt(M_TRIM_THRESHOLD, 1 << 17))


def keep_memory() -> None:
    """Tells glibc to keep freed memory rather than hand it back to the kernel; does nothing under another C library.

    A training step frees and asks again for the same hundreds of megabytes. Each time the kernel would clear every
    page anew, which on two cores costs as much as the arithmetic (measured: a step of stage 0 takes half the time).
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 1 << 28), (M_ARENA_MAX, 1)):
            library.mallopt(option, value)


def spare_loaded() -> None:
    """Exempts all that is loaded by now from Python's garbage collections.

    A full one over the 750,000 objects of a page with its model takes 0.4 s, in the middle of somebody's answer. What
    is exempt and part of a cycle is never freed: not for a model that another may replace.
    """
    gc.collect()
    gc.freeze()
