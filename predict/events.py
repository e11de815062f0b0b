"""Find events in a stream of scores: spans in which the score of a label is high."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from errors import UserError


@dataclass(frozen=True)
class Event:
    """A span, in seconds, in which every window's score of `label` reached the threshold."""

    label: str
    start: float
    end: float
    score: float  # the maximum over the span


class EventFinder:
    """Takes windows in order and reports the events that each of them starts or ends."""

    def __init__(self, labels: Sequence[str], alerts: Sequence[str], threshold: float) -> None:
        """Watch the labels in `alerts`, or all `labels` if empty. Raises UserError on others."""
        for label in alerts:
            if label not in labels:
                near = difflib.get_close_matches(label, labels, n=3, cutoff=0) or labels[:3]
                raise UserError(
                    f"--alert {label}: the model has no such class; similar: {', '.join(near)}"
                )
        watched = alerts or labels
        self._watched = [(i, label) for i, label in enumerate(labels) if label in watched]
        self._threshold = threshold
        self._open: dict[str, Event] = {}

    def add(
        self, start: float, end: float, scores: Sequence[float]
    ) -> tuple[list[Event], list[Event]]:
        """Add the window from `start` to `end` seconds; return (started events, ended events)."""
        started, ended = [], []
        for number, label in self._watched:
            score, earlier = float(scores[number]), self._open.get(label)
            if score < self._threshold:
                if earlier is not None:
                    ended.append(self._open.pop(label))
            elif earlier is None:
                self._open[label] = Event(label, start, end, score)
                started.append(self._open[label])
            else:
                self._open[label] = replace(earlier, end=end, score=max(score, earlier.score))
        return started, ended

    def finish(self) -> list[Event]:
        """End and return the events that are still open at the end of the stream."""
        ended, self._open = list(self._open.values()), {}
        return ended
