"""Write predictions to JSON and CSV files while they are computed, in constant memory."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from errors import UserError
from predict.predictions import ScoredWindow, VideoResult
from utils.files import atomic_write, is_stream, open_stream

DIGITS = 6  # of scores


class TextOutput:
    """A binary file that text is written to and flushed at once. Raises UserError on failure."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file

    def write(self, text: str) -> None:
        try:
            self._file.write(text.encode("utf-8", "backslashreplace"))
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path}: can't be written: {error.strerror}") from None


@contextmanager
def open_text_output(path: Path, start: str, *, at_once: bool = False) -> Iterator[TextOutput]:
    """Open a file that begins with `start`.

    An earlier file is replaced when everything is written, or with `at_once` when `start` is. A
    device or pipe receives everything immediately.
    """
    with ExitStack() as stack:
        if is_stream(path):
            output = TextOutput(path, stack.enter_context(open_stream(path)))
            output.write(start)
        elif at_once:
            with atomic_write(path) as part:
                part.write_text(start, encoding="utf-8", errors="backslashreplace")
            output = TextOutput(path, stack.enter_context(path.open("ab")))
        else:
            part = stack.enter_context(atomic_write(path))
            output = TextOutput(path, stack.enter_context(part.open("wb")))
            output.write(start)
        yield output


@contextmanager
def csv_writer(path: Path, labels: Sequence[str], *, at_once: bool) -> Iterator["CsvWriter"]:
    """Open a CSV file with one column per label; see open_text_output."""
    columns = ["video", "start", "end", "first_frame", "last_frame", *labels]
    with open_text_output(path, _csv_line(columns), at_once=at_once) as output:
        yield CsvWriter(output)


class CsvWriter:
    """Writes a row per window with the scores of all labels."""

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
    """Open {**about, "labels": […], "videos": [{"video", "windows": […], "results": […], …}, …]}"""
    header = json.dumps(about | {"labels": list(labels)}, ensure_ascii=False, allow_nan=False)
    with open_text_output(path, header[:-1] + ', "videos": [') as output:
        yield JsonWriter(output, labels, topk)
        output.write("]}\n")


class JsonWriter:
    """Writes the elements of "videos"."""

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
