"""Send batches from a loader process to the main process in anonymous shared memory.

torch shares tensors through /dev/shm, which Docker limits to 64 MB by default; a batch of 128 clips
takes 77. Memory from memfd_create(2) has no such limit. Messages through the pipe between the
processes stay below 4096 bytes, which are written atomically: a worker that is killed never leaves
half a message, for which the main process would wait forever.
"""

import math
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

CAN_SHARE = sys.platform == "linux"  # elsewhere torch sends the tensors


class Parcel(Generic[T]):
    """Unpickles in another process as `unpack(tensor, *rest)`, where `tensor` is the concatenation
    of `parts`, uint8, or as an exception if it can't be opened, for example because this process
    has ended.

    Raises OSError if no file descriptor is left.
    """

    def __init__(self, unpack: Callable[..., T], parts: list[Tensor], *rest: Any) -> None:
        self.unpack = unpack
        from multiprocessing.reduction import DupFd  # not on Windows

        n_items = sum(len(part) for part in parts)
        self.shape = (n_items, *parts[0].shape[1:]) if parts else (0,)
        text = pickle.dumps(rest, protocol=pickle.HIGHEST_PROTOCOL)
        self.n_rest = len(text)
        file = os.memfd_create("clips", os.MFD_CLOEXEC)
        try:
            if parts:
                torch.cat(parts, out=_mapped(file, self.shape))
            os.pwrite(file, text, math.prod(self.shape))
            self.handle = DupFd(file)
        finally:
            os.close(file)

    def __reduce__(self) -> tuple[Callable[..., T | Exception], tuple[Any, ...]]:
        return _opened, (self.unpack, self.handle, self.shape, self.n_rest)


def _opened(
    unpack: Callable[..., T], handle: Any, shape: tuple[int, ...], n_rest: int
) -> T | Exception:
    try:
        file = handle.detach()
    except (OSError, EOFError, RuntimeError) as error:
        return error  # raising it would end torch's pin-memory thread
    try:
        n_bytes = math.prod(shape)
        tensor = _mapped(file, shape) if n_bytes else torch.empty(shape, dtype=torch.uint8)
        return unpack(tensor, *pickle.loads(os.pread(file, n_rest, n_bytes)))
    finally:
        os.close(file)


def _mapped(file: int, shape: tuple[int, ...]) -> Tensor:
    """Map the first bytes of an open file as a uint8 tensor, which outlives the file descriptor."""
    path, n_bytes = f"/proc/self/fd/{file}", math.prod(shape)
    return torch.from_file(path, shared=True, size=n_bytes, dtype=torch.uint8).view(shape)
