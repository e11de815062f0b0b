"""Frames as they come out of a pipe -> the windows of inference, in constant memory.

The windows are those of temporal_transforms.sliding_starts, which needs to know a video's length;
here it is known only when the stream ends, if ever.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.samplers import MAX_WINDOWS
from temporal_transforms import window as window_positions


class Frame(NamedTuple):
    """One decoded frame: its number from 1, when it is shown and until when, in seconds."""

    number: int
    start: float
    end: float
    pixels: Tensor  # uint8 (3, H, W)


class Window(NamedTuple):
    """One window: its place in frame numbers (first, last + 1) and in seconds."""

    clip: Tensor  # uint8 (3, T, H, W)
    segment: tuple[int, int]
    start: float
    end: float


def read_ppm(pipe: IO[bytes]) -> Tensor | None:
    """The next picture of a pipe of PPM files, uint8 (3, H, W); None at its end, or where it was
    cut off."""
    if pipe.readline() != b"P6\n":
        return None
    size, depth = pipe.readline(), pipe.readline()
    if depth != b"255\n":
        return None
    width, height = map(int, size.split())
    data = bytearray(height * width * 3)
    view, n_read = memoryview(data), 0
    while n_read < len(data):
        got = pipe.readinto(view[n_read:])  # type: ignore[attr-defined]
        if not got:
            return None
        n_read += got
    return torch.from_numpy(np.frombuffer(data, np.uint8).reshape(height, width, 3)).permute(
        2, 0, 1
    )


def form_windows(
    frames: Iterable[Frame],
    transform: Callable[[Tensor], Tensor],
    *,
    size: int,
    stride: int,
    t_stride: int = 1,
) -> Iterator[Window]:
    """Each window as soon as its last frame is there; the looped one at the end.

    `size` and `stride` count kept frames: every `t_stride`-th. `transform` brings a frame's pixels
    to uint8 (3, h, w), once, however many windows hold it. Holds at most `size` frames.
    """
    held: deque[Frame] = deque()  # from the next window's first on
    start = n_kept = 0
    for frame in frames:
        if (frame.number - 1) % t_stride:
            continue
        if n_kept >= start:
            held.append(frame._replace(pixels=transform(frame.pixels)))
        n_kept += 1
        if n_kept == start + size:
            yield _window([held[i] for i in range(size)])
            start += stride
            for _ in range(min(stride, size)):
                held.popleft()
    if start < n_kept:
        yield _window([held[i] for i in window_positions(len(held), size, 0)])


def _window(frames: list[Frame]) -> Window:
    first, last = frames[0], max(frames, key=lambda frame: frame.number)
    clip = torch.stack([frame.pixels for frame in frames], dim=1)  # (3, T, h, w)
    return Window(clip, (first.number, last.number + 1), first.start, last.end)


class Prefetched:
    """Windows that a thread makes while the model computes, in batches of what is there.

    Of a file all windows come, and the thread waits where the model is slower. A live stream does
    not wait: of what is there the newest window alone is given out, and the others are counted in
    `n_skipped`, so that what comes out is never late by more than a window's arithmetic.
    """

    def __init__(self, windows: Iterator[Window], *, is_live: bool) -> None:
        self.n_skipped = 0
        self._is_live = is_live
        size = 0 if is_live else MAX_WINDOWS
        self._queue: queue.Queue[Window | BaseException | None] = queue.Queue(size)
        self._closed = False
        self._thread = threading.Thread(target=self._work, args=(windows,), daemon=True)
        self._thread.start()

    def _work(self, windows: Iterator[Window]) -> None:
        try:
            for window in windows:
                if self._closed:
                    return
                self._queue.put(window)
            self._queue.put(None)
        except BaseException as error:  # the consumer raises it
            self._queue.put(error)

    def batches(self) -> Iterator[list[Window]]:
        """At most MAX_WINDOWS windows each. Raises what making them raised."""
        last: BaseException | bool = False
        while last is False:
            batch: list[Window] = []
            while last is False and len(batch) < MAX_WINDOWS:
                if batch and self._queue.empty():
                    break
                item = self._queue.get()
                if isinstance(item, Window):
                    batch.append(item)
                else:
                    last = True if item is None else item
            if self._is_live and len(batch) > 1:
                self.n_skipped += len(batch) - 1
                batch = batch[-1:]
            if batch:
                yield batch
        if isinstance(last, BaseException):
            raise last

    def close(self) -> None:
        """Give up what is not consumed; the source of the windows has to end by itself."""
        self._closed = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
