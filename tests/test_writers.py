import json

import numpy as np
import pytest

from predict.console import MAX_PARTS, Printer, Timeline, clock
from predict.predictions import ScoredWindow, VideoResult
from predict.writers import json_writer

LABELS = ("a", "b")


def windows(firsts, score=0.8):
    """A window of one second for each number in `firsts`, which is its top label."""
    for i, first in enumerate(firsts):
        scores = np.full(2, 1 - score)
        scores[first] = score
        yield ScoredWindow((10 * i + 1, 10 * i + 11), float(i), float(i + 1), scores)


def timeline(firsts):
    made = Timeline()
    for window in windows(firsts):
        made.add(window)
    return made.lines(LABELS)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00.00"), (59.999, "0:01:00.00"), (3725.5, "1:02:05.50"), (36e4, "100:00:00.00")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_consecutive_windows_of_one_label_are_merged():
    assert timeline([0, 0, 1, 0]) == [
        "  0:00:00.00 - 0:00:02.00  0.800  a",
        "  0:00:02.00 - 0:00:03.00  0.800  b",
        "  0:00:03.00 - 0:00:04.00  0.800  a",
    ]


@pytest.mark.parametrize("n_more", [0, 1, 2, 500])
def test_a_timeline_is_limited_in_length(n_more):
    lines = timeline([i % 2 for i in range(MAX_PARTS + n_more)])
    assert len(lines) == MAX_PARTS + (n_more > 0)
    assert n_more == 0 or lines[-1].startswith(f"  and {n_more} more")


def test_the_heading_is_printed_with_the_first_window(capsys):
    printer = Printer(LABELS, 1, each=True, merged=True)
    printer.begin("readme.txt")
    printer.end(VideoResult("readme.txt"))
    assert capsys.readouterr().out == ""
    printer.begin("two\nlines.avi")
    for window in windows([0, 1]):
        printer.window(window)
    assert capsys.readouterr().out.splitlines()[::2] == [
        "'two\\nlines.avi':",
        "  0:00:01.00 - 0:00:02.00  0.800  b",
    ]


def test_the_json_file_is_complete_or_absent(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="mine"), json_writer(path, LABELS, 0, {}) as writer:
        writer.begin("a")
        raise ValueError("mine")
    assert not list(tmp_path.iterdir())
    with json_writer(path, LABELS, 0, {"stride": 16}) as writer:
        for name in ("ä.avi", "\udcff.avi"):
            result = VideoResult(name)
            writer.begin(name)
            for window in windows([0, 1]):
                writer.window(window)
                result.add(window)
            writer.end(result)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["stride"] == 16
    assert content["labels"] == ["a", "b"]
    assert [video["video"] for video in content["videos"]] == ["ä.avi", "\udcff.avi"]
    assert [w["segment"] for w in content["videos"][1]["windows"]] == [[1, 11], [11, 21]]
    assert content["videos"][1]["results"] == [
        {"label": "a", "score": pytest.approx(0.5)}, {"label": "b", "score": pytest.approx(0.5)}
    ]  # fmt: skip
