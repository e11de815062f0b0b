"""Batches on their way to a GPU, and results on their way back, without waiting for either."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

BATCHES_AHEAD = 2  # batches that may wait on a GPU for the one it computes
MAX_PENDING = 50  # batches whose results may stay on a GPU before they are fetched together

T = TypeVar("T")


class HasClips(Protocol):
    """A NamedTuple with a field `clips`."""

    @property
    def clips(self) -> Tensor: ...

    def _replace(self, *, clips: Tensor) -> Any: ...


Batch = TypeVar("Batch", bound=HasClips)


def prefetch(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches with their clips on `device`, copied while earlier ones are computed."""
    return paced(copied(batches, device), device)


def copied(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches with their clips on `device`; to a GPU they are copied on a side stream."""
    if device.type == "cpu":
        yield from batches
        return
    side = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(side):
            clips = batch.clips.to(device, non_blocking=True)
        current = torch.cuda.current_stream(device)
        current.wait_stream(side)
        clips.record_stream(current)
        yield batch._replace(clips=clips)


def paced(batches: Iterable[T], device: torch.device) -> Iterator[T]:
    """Yield a batch only while at most BATCHES_AHEAD earlier ones are still to be computed.

    That bounds the GPU memory of waiting batches and never leaves the GPU without work.
    """
    if device.type == "cpu":
        yield from batches
        return
    given = deque[torch.cuda.Event]()
    for batch in batches:
        yield batch
        given.append(torch.cuda.Event(blocking=True))
        given[-1].record(torch.cuda.current_stream(device))
        if len(given) > BATCHES_AHEAD:
            given.popleft().synchronize()


def fetched(
    results: Iterable[tuple[T, Tensor]], device: torch.device
) -> Iterator[tuple[T, Tensor]]:
    """Yield the pairs with their tensors on the CPU.

    From a GPU up to MAX_PENDING are fetched together, so that it never waits after a batch.
    """
    pending: list[tuple[T, Tensor]] = []
    limit = 1 if device.type == "cpu" else MAX_PENDING
    for result in results:
        pending.append(result)
        if len(pending) >= limit:
            yield from ((about, tensor.cpu()) for about, tensor in pending)
            pending.clear()
    yield from ((about, tensor.cpu()) for about, tensor in pending)
