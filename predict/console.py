"""Print predictions as they come: windows, a merged timeline, the ranking, events."""

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from predict.events import Event, EventFinder
from predict.predictions import ScoredWindow, VideoResult
from utils.command_line import printable
from utils.reading import shown_name

RECENT_WINDOWS = 1000  # so that the clocks of camera and computer may drift apart
MAX_PARTS = 20  # lines of a timeline before "and N more"


def say(line: str, *, error: bool = False) -> None:
    """Print one line and flush it, without breaking a progress bar."""
    stream = sys.stderr if error else sys.stdout
    tqdm.write(line, file=stream)
    stream.flush()


def clock(seconds: float) -> str:
    """Format seconds as H:MM:SS.cc."""
    hundredths = round(seconds * 100)
    minutes, hundredths = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02}:{hundredths // 100:02}.{hundredths % 100:02}"


def _line(start: float, end: float, score: float, label: str) -> str:
    return f"  {clock(start)} - {clock(end)}  {score:.3f}  {shown_name(label)}"


class Part(NamedTuple):
    """Consecutive windows with the same top label."""

    label: int
    start: float
    end: float
    total: float  # sum of the label's scores
    n_windows: int


class Timeline:
    """Merges consecutive windows with the same top label, and keeps the first MAX_PARTS parts."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.n_more = 0

    def add(self, window: ScoredWindow) -> None:
        label = int(window.scores.argmax())
        score = float(window.scores[label])
        last = self.parts[-1] if self.parts else None
        if last is not None and last.label == label:
            n_windows, total = last.n_windows + 1, last.total + score
            self.parts[-1] = Part(label, last.start, window.end, total, n_windows)
            return
        if len(self.parts) > MAX_PARTS:  # one more is kept, to merge the next window with
            self.parts.pop()
            self.n_more += 1
        self.parts.append(Part(label, window.start, window.end, score, 1))

    def lines(self, labels: Sequence[str]) -> list[str]:
        shown = [
            _line(part.start, part.end, part.total / part.n_windows, labels[part.label])
            for part in self.parts[:MAX_PARTS]
        ]
        n_more = self.n_more + max(0, len(self.parts) - MAX_PARTS)
        return [*shown, *([f"  and {n_more} more parts (--timeline, --csv)"] if n_more else [])]


class Printer:
    """Prints the ranking of each video, and its windows: each at once, merged, or not at all."""

    def __init__(self, labels: Sequence[str], topk: int, *, each: bool, merged: bool) -> None:
        """Print `each` window when it is scored; else, if `merged`, a timeline at the end."""
        self._labels, self._topk = labels, topk
        self._each, self._merged = each, merged
        self._timeline, self._heading = Timeline(), ""

    def begin(self, name: str) -> None:
        self._timeline, self._heading = Timeline(), f"{printable(name)}:"

    def window(self, window: ScoredWindow) -> None:
        if self._each:
            if self._heading:  # only now: the file may turn out not to be a video
                say(self._heading)
                self._heading = ""
            best = int(window.scores.argmax())
            say(_line(window.start, window.end, window.scores[best], self._labels[best]))
        elif self._merged:
            self._timeline.add(window)

    def end(self, result: VideoResult) -> None:
        if not result.n_windows:
            return
        length = f"{result.frames} frames, {result.seconds:.2f} s, {result.n_windows} windows"
        skipped = f", {result.n_skipped} skipped" if result.n_skipped else ""
        say(f"{printable(result.name)}: {length}{skipped}")
        for entry in result.ranked(self._labels, self._topk):
            say(f"  {entry['score']:.3f}  {shown_name(entry['label'])}")
        for line in self._timeline.lines(self._labels):
            say(line)


class EventPrinter:
    """Prints each event on stdout when it ends; of a live stream also on stderr when it starts."""

    def __init__(
        self, labels: Sequence[str], alerts: Sequence[str], threshold: float, *, is_live: bool
    ) -> None:
        """See EventFinder. Raises UserError."""
        self._finder = EventFinder(labels, alerts, threshold)
        self._is_live = is_live
        # Times of day of the live stream's second 0, as each window has it: late by the time that
        # reading and scoring took, so the earliest is the best.
        self._began_at: deque[float] = deque(maxlen=RECENT_WINDOWS)
        self._events: list[Event] = []
        self._name = ""

    def begin(self, name: str) -> None:
        self._events = []
        self._name = "" if self._is_live else f"  {printable(name)}"

    def window(self, window: ScoredWindow) -> None:
        self._began_at.append(time.time() - window.end)
        started, ended = self._finder.add(window.start, window.end, window.scores.tolist())
        for event in started if self._is_live else ():
            line = f"{shown_name(event.label)} begins ({event.score:.3f})"
            say(f"{self._time_of_day(event)}{line}", error=True)
        self._print(ended)

    def end(self, result: VideoResult) -> None:
        self._print(self._finder.finish())
        result.events = self._events

    def _print(self, events: Sequence[Event]) -> None:
        self._events += events
        for event in events:
            line = _line(event.start, event.end, event.score, event.label)
            say(f"{self._time_of_day(event)}event{line}{self._name}")

    def _time_of_day(self, event: Event) -> str:
        if not self._is_live or not self._began_at:
            return ""
        moment = time.localtime(min(self._began_at) + event.start)
        return time.strftime("%Y-%m-%dT%H:%M:%S ", moment)
