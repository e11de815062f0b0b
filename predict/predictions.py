"""Predictions for one video, window by window, and the interface of what consumes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from evaluation.results import ranked
from predict.events import Event

if TYPE_CHECKING:
    from torch import Tensor


class ScoredWindow(NamedTuple):
    """Softmax scores of one window, float64 (K,), with its place in frames and seconds, and the
    input of the model, uint8 (3, T, H, W)."""

    segment: tuple[int, int]  # first frame from 1, last + 1
    start: float
    end: float
    scores: np.ndarray
    clip: "Tensor | None" = None


@dataclass
class VideoResult:
    """The result of one video so far: the sum of its window scores, and how it was decoded."""

    name: str
    frames: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    n_windows: int = 0
    n_skipped: int = 0  # windows of a live stream that were not scored
    total: np.ndarray | None = None  # (K,) summed over the windows
    events: list[Event] = field(default_factory=list)
    problem: str = ""  # why there are no scores, or what is damaged
    is_cut: bool = False  # the video goes on: its scoring was stopped, as `problem` says

    def add(self, window: ScoredWindow) -> None:
        self.n_windows += 1
        self.total = window.scores if self.total is None else self.total + window.scores

    def ranked(self, labels: Sequence[str], topk: int) -> list[dict[str, Any]]:
        """Rank the mean over the windows as evaluation.results.ranked; empty without windows."""
        return [] if self.total is None else ranked(self.total / self.n_windows, labels, topk)


class Sink(Protocol):
    """A consumer of predictions: `begin`, any number of `window`, `end` for each video."""

    def begin(self, name: str) -> None: ...

    def window(self, window: ScoredWindow) -> None: ...

    def end(self, result: VideoResult) -> None: ...
