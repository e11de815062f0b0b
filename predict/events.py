"""What to be told of while a stream is watched: when a label's score is high. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Event:
    """A time in which every window's score of `label` reached the threshold, in seconds.

    `score` is the highest of them.
    """

    label: str
    start: float
    end: float
    score: float


class EventFinder:
    """Takes windows in their order and tells what began and what ended with each."""

    def __init__(self, labels: Sequence[str], alerts: Sequence[str], threshold: float) -> None:
        """`labels` name the scores; without `alerts` all of them count."""
        watched = alerts or labels
        self._watched = [(i, label) for i, label in enumerate(labels) if label in watched]
        self._threshold = threshold
        self._open: dict[str, Event] = {}

    def add(
        self, start: float, end: float, scores: Sequence[float]
    ) -> tuple[list[Event], list[Event]]:
        """A window from `start` to `end` -> (events that began with it, events it showed ended)."""
        began, ended = [], []
        for number, label in self._watched:
            score, earlier = float(scores[number]), self._open.get(label)
            if score < self._threshold:
                if earlier is not None:
                    ended.append(self._open.pop(label))
            elif earlier is None:
                self._open[label] = Event(label, start, end, score)
                began.append(self._open[label])
            else:
                self._open[label] = replace(earlier, end=end, score=max(score, earlier.score))
        return began, ended

    def finish(self) -> list[Event]:
        """The events that are open where the stream ends."""
        ended, self._open = list(self._open.values()), {}
        return ended
