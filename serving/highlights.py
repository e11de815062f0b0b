"""The frames that counted: the best window of each of the top labels, with its heat map."""

from collections.abc import Mapping, Sequence
from typing import Any

from predict.predictions import ScoredWindow, VideoResult
from reporting.strips import Strip, Viewer, with_pictures

N_KEPT = 8  # labels whose best clip is kept while a video is scored
N_SHOWN = 3


class BestWindows:
    """A sink that keeps, for each label, the window with its highest score among those in which it
    is the top label: for N_KEPT labels, those with the highest scores."""

    def __init__(self) -> None:
        self.best: dict[int, ScoredWindow] = {}

    def begin(self, name: str) -> None:
        pass

    def window(self, window: ScoredWindow) -> None:
        label = int(window.scores.argmax())
        earlier = self.best.get(label)
        if earlier is None or window.scores[label] > earlier.scores[label]:
            self.best[label] = window
        if len(self.best) > N_KEPT:
            del self.best[min(self.best, key=lambda label: self.best[label].scores[label])]

    def end(self, result: VideoResult) -> None:
        pass


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
