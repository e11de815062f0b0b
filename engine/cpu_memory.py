"""Keep freed memory in a process that computes on a CPU, instead of returning it to Linux."""

import ctypes
import os
import sys
from pathlib import Path

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of malloc.h
GLIBC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
TUNABLES = ("trim_threshold", "mmap_max", "mmap_threshold")
GROWTH = 1.05  # of resident memory, after which kept memory is returned


def keep_freed_memory() -> bool:
    """Let this process and its forks keep freed memory; return whether glibc does that now.

    By default glibc returns every large tensor to Linux, which zeroes and maps its pages one by one
    when the next layer allocates as much: 10 to 20% of a CPU's time in training and inference. A
    user's own settings of glibc (man mallopt) are left alone.
    """
    libc = _glibc()
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    is_set = any(name in os.environ for name in GLIBC_VARIABLES)
    if libc is None or is_set or any(name in tunables for name in TUNABLES):
        return False
    give_back()  # what reading the index took, for example
    return bool(libc.mallopt(MMAP_MAX, 0) and libc.mallopt(TRIM_THRESHOLD, -1))


def give_back() -> None:
    """Return kept memory to the system: before a fork, since the child would keep it too."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


class MemoryBound:
    """Bounds the kept memory of a process that computes one batch after the other.

    Small objects between large ones fragment it, so that it grows by a quarter over some dozens of
    batches; it is returned to the system whenever it has grown by more than GROWTH.
    """

    def __init__(self) -> None:
        self._bound = 0.0  # bytes; 0 until the next batch sets it

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
    """Return the resident bytes of this process; 0 if unknown."""
    if sys.platform != "linux":
        return 0
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
