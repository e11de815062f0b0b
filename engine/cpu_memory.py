"""Memory that a process frees, kept for what it allocates next."""

import ctypes
import os
import sys
from pathlib import Path

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of malloc.h
GLIBC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
TUNABLES = ("trim_threshold", "mmap_max", "mmap_threshold")
GROWTH = 1.05  # of what a process holds, before it gives back what it keeps


def keep_freed_memory() -> bool:
    """Let freed memory stay with this process and those it forks; whether that could be had.

    By itself glibc hands every large tensor back to Linux, which fills its pages with zeros and
    maps them one by one when the next layer asks for as much: a tenth to a fifth of a CPU's time
    in training and inference. A user who sets one of glibc's own variables for this (man mallopt)
    is obeyed.
    """
    libc = _glibc()
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    is_set = any(name in os.environ for name in GLIBC_VARIABLES)
    if libc is None or is_set or any(name in tunables for name in TUNABLES):
        return False
    give_back()  # what was needed before: an index being read, for one
    return bool(libc.mallopt(MMAP_MAX, 0) and libc.mallopt(TRIM_THRESHOLD, -1))


def give_back() -> None:
    """Return what is kept to the system. Before a fork above all: the child would hold it too."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


class MemoryBound:
    """Bounds what a process holds while it does the same work again and again.

    Small objects that come to lie among large ones let what is kept grow, by a quarter over the
    first dozens of batches, so that it is given back whenever it has grown by more than GROWTH.
    """

    def __init__(self) -> None:
        self._bound = 0.0  # bytes; not known before the first batch, and after giving back

    def after_batch(self) -> None:
        held = _resident()
        if not self._bound:
            self._bound = held * GROWTH
        elif held > self._bound:
            give_back()
            self._bound = 0.0


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
