"""The frames that counted: the best window of each of the top labels, with its heat map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from predict.predictions import ScoredWindow, VideoResult
from reporting.strips import Strip, Viewer, with_pictures

N_SHOWN = 3
N_LEADING = 8  # labels with the highest mean so far, any of which may be shown at the end
N_KEPT = 16  # clips of labels that are kept while a video is scored


class BestWindows:
    """A sink that keeps the window with a label's highest score, for up to N_KEPT labels: the
    leading ones, and others by their highest scores."""

    def __init__(self) -> None:
        self.best: dict[int, ScoredWindow] = {}
        self._total = self._peaks = np.zeros(0)  # (K,) sum and maximum over the windows

    def begin(self, name: str) -> None:
        pass

    def window(self, window: ScoredWindow) -> None:
        scores = window.scores
        if not self._total.size:
            self._total, self._peaks = np.zeros_like(scores), np.full_like(scores, -1)
        self._total = self._total + scores
        leading = set(_first(self._total, N_LEADING))
        higher = scores > self._peaks
        self._peaks = np.maximum(self._peaks, scores)
        for label in leading.union(_first(scores, N_KEPT), self.best):
            if higher[label]:
                self.best[label] = window
        while len(self.best) > N_KEPT:
            del self.best[min(self.best, key=lambda label: (label in leading, self._peaks[label]))]

    def end(self, result: VideoResult) -> None:
        pass


def _first(scores: np.ndarray, n: int) -> list[int]:
    return np.argsort(-scores, kind="stable")[:n].tolist()


def explain(
    best: Mapping[int, ScoredWindow],
    ranking: Sequence[str],
    labels: Sequence[str],
    viewer: Viewer | None,
    name: str,
) -> list[dict[str, Any]]:
    """Describe the best windows of the first labels of `ranking`, for the page. Without `viewer`
    there are no heat maps."""
    places = {label: place for place, label in enumerate(labels)}
    shown = [places[label] for label in ranking if places[label] in best][:N_SHOWN]
    return [_described(best[label], labels[label], label, viewer, name) for label in shown]


def _described(
    window: ScoredWindow, label: str, number: int, viewer: Viewer | None, name: str
) -> dict[str, Any]:
    assert window.clip is not None
    heat = None if viewer is None else viewer.explain(window.clip[None], number)[1]
    bare = Strip(name, None, label, [], "")
    strip = with_pictures(bare, window.clip, heat)
    return {
        "label": label,
        "score": round(float(window.scores[number]), 4),
        "start": round(window.start, 3),
        "end": round(window.end, 3),
        "frames": strip.frames,
        "frames_alt": strip.frames_alt,
        "heat": strip.heat,
        "heat_alt": strip.heat_alt,
        "size": list(strip.size),
    }
