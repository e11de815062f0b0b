"""What is written of predictions as they come: lines to read, a JSON file, a CSV file.

None of it grows with the length of a stream, but for the events.
"""

import csv
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from errors import UserError
from evaluation.results import ranked
from predict.events import Event, EventFinder
from utils.command_line import printable
from utils.files import is_stream, open_stream, written_whole
from utils.reading import shown_name

SHOWN_PARTS = 20  # lines of a timeline, before "and N more"
DIGITS = 6  # of scores in files


class ScoredWindow(NamedTuple):
    """A window's softmax over the labels, float64 (K,), and its place in frames and seconds."""

    segment: tuple[int, int]  # first frame number from 1, last + 1
    start: float
    end: float
    scores: np.ndarray


@dataclass
class VideoResult:
    """What was made of one video, so far: the sum of its windows' scores, (K,), and the rest."""

    name: str
    frames: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    n_windows: int = 0
    n_skipped: int = 0  # windows of a live stream that were not scored
    total: np.ndarray | None = None
    events: list[Event] = field(default_factory=list)
    problem: str = ""  # why there are no scores, or what is wrong with the video all the same

    def add(self, window: ScoredWindow) -> None:
        self.n_windows += 1
        self.total = window.scores if self.total is None else self.total + window.scores

    def ranked(self, labels: Sequence[str], topk: int) -> list[dict[str, Any]]:
        """The mean over the windows, as results.ranked gives it; nothing without windows."""
        return [] if self.total is None else ranked(self.total / self.n_windows, labels, topk)


class Sink(Protocol):
    """Takes the predictions of one video after the other."""

    def begin(self, name: str) -> None: ...

    def window(self, window: ScoredWindow) -> None: ...

    def end(self, result: VideoResult) -> None: ...


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS.cc."""
    hundredths = round(seconds * 100)
    minutes, hundredths = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02}:{hundredths // 100:02}.{hundredths % 100:02}"


def say(line: str, *, error: bool = False) -> None:
    """One line at once, past a progress bar."""
    stream = sys.stderr if error else sys.stdout
    tqdm.write(line, file=stream)
    stream.flush()


class Part(NamedTuple):
    """Neighbouring windows of one top label."""

    label: int
    start: float
    end: float
    total: float  # sum of its scores
    n_windows: int


class Timeline:
    """The parts of a video in which one label is first, the first SHOWN_PARTS of them."""

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
        if len(self.parts) > SHOWN_PARTS:  # the last one is kept to tell its neighbours by
            self.parts.pop()
            self.n_more += 1
        self.parts.append(Part(label, window.start, window.end, score, 1))

    def lines(self, labels: Sequence[str]) -> list[str]:
        shown = [
            _line(part.start, part.end, part.total / part.n_windows, labels[part.label])
            for part in self.parts[:SHOWN_PARTS]
        ]
        n_more = self.n_more + max(0, len(self.parts) - SHOWN_PARTS)
        return [*shown, *([f"  and {n_more} more parts (--timeline, --csv)"] if n_more else [])]


def _line(start: float, end: float, score: float, label: str) -> str:
    return f"  {clock(start)} - {clock(end)}  {score:.3f}  {shown_name(label)}"


class Printer:
    """Lines to read on stdout: every window at once with `timeline`, else merged at the end."""

    def __init__(self, labels: Sequence[str], topk: int, *, timeline: bool, quiet: bool) -> None:
        self._labels, self._topk = labels, topk
        self._each, self._quiet = timeline, quiet
        self._timeline, self._heading = Timeline(), ""

    def begin(self, name: str) -> None:
        self._timeline, self._heading = Timeline(), f"{printable(name)}:"

    def window(self, window: ScoredWindow) -> None:
        if self._each:
            if self._heading:  # not for what turns out to be no video
                say(self._heading)
                self._heading = ""
            best = int(window.scores.argmax())
            say(_line(window.start, window.end, window.scores[best], self._labels[best]))
        elif not self._quiet:
            self._timeline.add(window)

    def end(self, result: VideoResult) -> None:
        if not result.n_windows:
            return
        length = f"{result.frames} frames, {result.seconds:.2f} s, {result.n_windows} windows"
        skipped = f", {result.n_skipped} more skipped" if result.n_skipped else ""
        say(f"{printable(result.name)}: {length}{skipped}")
        for entry in result.ranked(self._labels, self._topk):
            say(f"  {entry['score']:.3f}  {shown_name(entry['label'])}")
        for line in self._timeline.lines(self._labels):
            say(line)


class Watch:
    """Tells events: one line on stdout when one is over, and a line on stderr when it begins."""

    def __init__(
        self, labels: Sequence[str], alerts: Sequence[str], threshold: float, *, is_live: bool
    ) -> None:
        self._arguments = (labels, alerts, threshold)
        self._is_live = is_live
        self._finder = EventFinder(*self._arguments)
        self._events: list[Event] = []
        self._name = ""
        self._zero = 0.0  # the time of day when the stream began, as seconds since 1970

    def begin(self, name: str) -> None:
        self._finder, self._events = EventFinder(*self._arguments), []
        self._name = "" if self._is_live else f"  {printable(name)}"

    def window(self, window: ScoredWindow) -> None:
        self._zero = self._zero or time.time() - window.end
        began, ended = self._finder.add(window.start, window.end, window.scores.tolist())
        for event in began if self._is_live else ():
            say(
                f"{self._day(event)}{shown_name(event.label)} begins ({event.score:.3f})",
                error=True,
            )
        self._tell(ended)

    def end(self, result: VideoResult) -> None:
        self._tell(self._finder.finish())
        result.events = self._events

    def _tell(self, events: Sequence[Event]) -> None:
        self._events += events
        for event in events:
            line = _line(event.start, event.end, event.score, event.label)
            say(f"{self._day(event)}event{line}{self._name}")

    def _day(self, event: Event) -> str:
        """The time of day of an event's start, of a live stream."""
        if not self._is_live:
            return ""
        moment = time.localtime(self._zero + event.start)
        return time.strftime("%Y-%m-%dT%H:%M:%S ", moment)


class TextOutput:
    """A file that takes text as it comes. Raises UserError where it can't be written."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file

    def write(self, text: str) -> None:
        try:
            self._file.write(text.encode("utf-8", "backslashreplace"))
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path}: can't be written: {error.strerror}") from None


@contextmanager
def text_output(path: Path, start: str, *, at_once: bool = False) -> Iterator[TextOutput]:
    """A file that begins with `start`. It replaces an earlier one when all is written, or with
    `at_once` when its start is; a device or pipe gets everything as it comes."""
    with ExitStack() as stack:
        if is_stream(path):
            output = TextOutput(path, stack.enter_context(open_stream(path)))
            output.write(start)
        elif at_once:
            with written_whole(path) as part:
                part.write_text(start, encoding="utf-8", errors="backslashreplace")
            output = TextOutput(path, stack.enter_context(path.open("ab")))
        else:
            part = stack.enter_context(written_whole(path))
            output = TextOutput(path, stack.enter_context(part.open("wb")))
            output.write(start)
        yield output


@contextmanager
def csv_writer(path: Path, labels: Sequence[str], *, at_once: bool) -> Iterator["CsvWriter"]:
    """See text_output."""
    columns = ["video", "start", "end", "first_frame", "last_frame", *labels]
    with text_output(path, _csv_line(columns), at_once=at_once) as output:
        yield CsvWriter(output)


class CsvWriter:
    """A row per window with the scores of all labels."""

    def __init__(self, output: TextOutput) -> None:
        self._output = output
        self._name = ""

    def begin(self, name: str) -> None:
        self._name = name

    def window(self, window: ScoredWindow) -> None:
        first, end = window.segment
        place = [f"{window.start:.3f}", f"{window.end:.3f}", first, end - 1]
        self._output.write(_csv_line([self._name, *place, *_rounded(window.scores)]))

    def end(self, result: VideoResult) -> None:
        pass


def _csv_line(values: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()


@contextmanager
def json_writer(
    path: Path, labels: Sequence[str], topk: int, about: dict[str, Any]
) -> Iterator["JsonWriter"]:
    """{"labels": […], …, "videos": [{"video", "windows": […], "results": […], …}, …]}"""
    header = json.dumps(about | {"labels": list(labels)}, ensure_ascii=False, allow_nan=False)
    with text_output(path, header[:-1] + ', "videos": [') as output:
        yield JsonWriter(output, labels, topk)
        output.write("]}\n")


class JsonWriter:
    """The elements of "videos"."""

    def __init__(self, output: TextOutput, labels: Sequence[str], topk: int) -> None:
        self._output, self._labels, self._topk = output, labels, topk
        self._before_video = self._before_window = "\n"

    def begin(self, name: str) -> None:
        name = json.dumps(name, allow_nan=False)
        self._output.write(f'{self._before_video}{{"video": {name}, "windows": [')
        self._before_video, self._before_window = ",\n", "\n"

    def window(self, window: ScoredWindow) -> None:
        content = {
            "segment": list(window.segment),
            "start": round(window.start, 3),
            "end": round(window.end, 3),
            "scores": _rounded(window.scores),
        }
        self._output.write(f"{self._before_window}  {json.dumps(content, allow_nan=False)}")
        self._before_window = ",\n"

    def end(self, result: VideoResult) -> None:
        content = {
            "frames": result.frames,
            "seconds": round(result.seconds, 3),
            "rate": result.rate,
            "skipped_windows": result.n_skipped,
            "results": result.ranked(self._labels, self._topk),
            "events": [vars(event) for event in result.events],
            "problem": result.problem or None,
        }
        self._output.write(f"], {json.dumps(content, ensure_ascii=False, allow_nan=False)[1:]}")


def _rounded(scores: np.ndarray) -> list[float]:
    return [round(score, DIGITS) for score in scores.tolist()]
