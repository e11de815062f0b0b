"""Form the windows of inference from frames as they are decoded, in constant memory.

The windows are those of temporal_transforms.sliding_starts, which needs to know the length of the
video; here the length is known only when the stream ends, if it ever does.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from datasets.build import build_eval_view
from datasets.samplers import MAX_WINDOWS
from predict.video_reader import Frame
from spatial_transforms import apply_view
from temporal_transforms import window as window_positions

if TYPE_CHECKING:
    from predict.classifier import Classifier


class Window(NamedTuple):
    """One window with its place in the video, in frame numbers and in seconds."""

    clip: Tensor  # uint8 (3, T, H, W)
    segment: tuple[int, int]  # first frame, last + 1
    start: float
    end: float


def classifier_windows(
    classifier: "Classifier", frames: Iterable[Frame], stride: int
) -> Iterator[Window]:
    """Form the windows of a video as main.py --inference does; `stride` counts kept frames."""
    options = classifier.options
    view = build_eval_view(options)

    def transform(pixels: Tensor) -> Tensor:  # uint8 (3, H, W) -> (3, h, w)
        _, height, width = pixels.shape
        return apply_view([pixels], view.draw(height, width, Random(0)))[0]

    return form_windows(
        frames,
        transform,
        size=options.sample_duration,
        stride=stride,
        t_stride=options.sample_t_stride,
    )


def form_windows(
    frames: Iterable[Frame],
    transform: Callable[[Tensor], Tensor],
    *,
    size: int,
    stride: int,
    t_stride: int = 1,
) -> Iterator[Window]:
    """Yield each window as soon as its last frame is decoded; loop the frames of the last one.

    `size` and `stride` count kept frames, every `t_stride`-th. `transform` maps a frame to uint8
    (3, h, w); it runs once per frame, however many windows overlap. Holds at most `size` frames.
    """
    held: deque[Frame] = deque()  # from the first frame of the next window on
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


class WindowPrefetcher:
    """Form windows in a thread while the model computes, and yield them in batches.

    For a file all windows are yielded, and the thread waits if the model is slower. A live stream
    cannot wait: only its newest window is kept, and those it replaces are counted in `n_skipped`,
    so that results lag by at most the time one window takes to score, and memory does not grow.
    """

    def __init__(
        self, windows: Iterator[Window], *, is_live: bool, max_batch: int = MAX_WINDOWS
    ) -> None:
        self._n_replaced = self._n_passed_over = 0  # each is counted by one thread
        self._is_live, self._max_batch = is_live, max_batch
        size = 0 if is_live else max_batch
        self._queue: queue.Queue[Window | BaseException | None] = queue.Queue(size)
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, args=(windows,), daemon=True)
        self._thread.start()

    def _work(self, windows: Iterator[Window]) -> None:
        try:
            for window in windows:
                if self._is_closed:
                    return
                if self._is_live:
                    self._take_back()
                self._queue.put(window)
            self._queue.put(None)
        except BaseException as error:  # raised again by batches()
            self._queue.put(error)

    def _take_back(self) -> None:
        """Remove a window that is still waiting."""
        with suppress(queue.Empty):
            self._queue.get_nowait()
            self._n_replaced += 1

    @property
    def n_skipped(self) -> int:
        """The windows of a live stream that were not yielded."""
        return self._n_replaced + self._n_passed_over

    def batches(self) -> Iterator[list[Window]]:
        """Yield lists of at most `max_batch` windows. Raises what forming them raised."""
        last: BaseException | bool = False
        while last is False:
            batch: list[Window] = []
            while last is False and len(batch) < self._max_batch:
                if batch and self._queue.empty():
                    break
                item = self._queue.get()
                if isinstance(item, Window):
                    batch.append(item)
                else:
                    last = True if item is None else item
            if self._is_live and len(batch) > 1:
                self._n_passed_over += len(batch) - 1
                batch = batch[-1:]
            if batch:
                yield batch
        if isinstance(last, BaseException):
            raise last

    def close(self) -> None:
        """Discard the remaining windows and wait for the thread; the caller stops its source."""
        self._is_closed = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
