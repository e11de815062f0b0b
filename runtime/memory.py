"""Memory that a process frees, kept for what it allocates next."""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of malloc.h
GLIBC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Let freed memory stay with this process and those it forks; whether that could be had.

    By itself glibc hands every large tensor back to Linux, which fills its pages with zeros and
    maps them one by one when the next layer asks for as much: a tenth to a fifth of a CPU's time
    in training and inference. The peak stays about the same. A user who sets one of glibc's own
    variables for this (man mallopt) is obeyed.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc" in tunables or any(name in os.environ for name in GLIBC_VARIABLES):
        return False
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        return False
    assert libc is not None
    libc.malloc_trim(0)  # what was needed before, an index being read, is given back
    return bool(libc.mallopt(MMAP_MAX, 0) and libc.mallopt(TRIM_THRESHOLD, -1))
