"""predict_video on a live stream: a named pipe that ffmpeg writes to."""

import csv
import json
import os
import signal
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from media.ffmpeg import Ffmpeg, Stopped
from predict.console import EventPrinter
from predict.predictions import ScoredWindow
from tests.test_predict_video import MODEL, predict, write_checkpoint

PICTURE = "testsrc2=s=64x48:r=25"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "best.pth"
    write_checkpoint(path, **MODEL | {"sample_t_stride": 1})
    return path


@pytest.fixture(autouse=True)
def sigint_enabled():
    """Enable SIGINT: a shell that starts the tests in the background disables it for them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def camera(tmp_path):
    """A function that starts a camera and returns its pipe; it runs for `seconds` or endlessly."""
    ffmpeg, threads = Ffmpeg(), []

    def start(seconds=None):
        pipe = tmp_path / "camera"
        os.mkfifo(pipe)
        length = [] if seconds is None else ["-t", str(seconds)]
        coding = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10"]
        source = ["-re", "-f", "lavfi", "-i", PICTURE, *length]
        command = ["-y", *source, *coding, "-f", "mpegts", f"file:{pipe}"]
        threads.append(threading.Thread(target=fill, args=(command,)))
        threads[0].start()
        return pipe

    def fill(command):
        with suppress(Stopped):
            ffmpeg.run(command)

    yield start
    try:
        ffmpeg.stop()
    finally:
        for thread in threads:
            thread.join()


def rows_of(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_events_of_a_stream_are_printed_while_it_runs(checkpoint, camera, tmp_path, capsys):
    arguments = ("--threshold", "0.0001", "--alert", "b", "--json", tmp_path / "a.json")
    assert predict(checkpoint, camera(2), *arguments, "--stride", "8") == 0
    printed = capsys.readouterr()
    (video,) = json.loads((tmp_path / "a.json").read_text())["videos"]
    (event,) = video["events"]
    assert (
        len(video["windows"]) + video["skipped_windows"] == 7
    )  # 50 frames: 6 and a last, looped one
    assert event["end"] == video["windows"][-1]["end"] == pytest.approx(2, abs=0.1)
    assert " b begins (" in printed.err
    (line,) = [line for line in printed.out.splitlines() if " event  " in line]
    assert line.endswith("  b")
    assert line.startswith(time.strftime("%Y-"))


def test_ctrl_c_ends_a_stream_with_the_results_so_far(checkpoint, camera, tmp_path, capsys):
    table = tmp_path / "a.csv"

    def interrupt():
        while not table.exists() or len(rows_of(table)) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    pipe = camera()
    assert predict(checkpoint, pipe, "--csv", table, "--json", tmp_path / "a.json") == 0
    thread.join()
    printed = capsys.readouterr()
    (video,) = json.loads((tmp_path / "a.json").read_text())["videos"]
    assert video["problem"] == "interrupted"
    assert len(video["windows"]) == len(rows_of(table)) >= 2
    assert "interrupted" in printed.err
    assert f"{pipe}: " in printed.out.splitlines()[-4]
    assert len(video["results"]) == 3


def test_ctrl_c_during_a_file_writes_the_results_or_keeps_earlier_ones(
    checkpoint, tmp_path, monkeypatch, capsys
):
    from predict.writers import CsvWriter
    from tests.videos import draw

    def interrupt(self, window):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    monkeypatch.setattr(CsvWriter, "window", interrupt)
    for name in ("a", "b"):
        draw(tmp_path / "v" / f"{name}.avi", seconds=3)
    outputs = ("--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json")
    assert predict(checkpoint, tmp_path / "v", *outputs) == 130
    (video,) = json.loads((tmp_path / "a.json").read_text())["videos"]
    assert video["problem"] == "interrupted"
    assert video["results"]
    written = "1 of 2 videos written, the last one in part"
    said = [f"{tmp_path}/a.csv: {written}", f"{tmp_path}/a.json: {written}"]
    assert capsys.readouterr().err.splitlines()[-2:] == said
    (tmp_path / "a.csv").unlink()
    before = (tmp_path / "a.json").read_bytes()
    assert predict(checkpoint, tmp_path / "v", *outputs, "--stride", "1") == 130
    said = [f"{tmp_path}/a.csv: {written}", f"{tmp_path}/a.json: kept as it was"]
    assert capsys.readouterr().err.splitlines()[-2:] == said
    assert (tmp_path / "a.json").read_bytes() == before
    table = (tmp_path / "a.csv").read_bytes()
    printed = ("--csv", tmp_path / "a.csv", "--json", "/dev/stdout")
    assert predict(checkpoint, tmp_path / "v", *printed) == 130
    assert capsys.readouterr().out.rstrip().endswith("]}")
    assert (tmp_path / "a.csv").read_bytes() == table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "v"]


def test_a_stream_shorter_than_a_window_is_looped(checkpoint, camera, tmp_path):
    assert predict(checkpoint, camera(0.2), "--json", tmp_path / "a.json") == 0
    (video,) = json.loads((tmp_path / "a.json").read_text())["videos"]
    assert video["frames"] == 5
    assert len(video["windows"]) == 1


def test_the_time_of_day_of_events_is_not_late_by_the_first_forward_pass(monkeypatch, capsys):
    """The stream began at 1000 s; the first window took 9 s to score, the second half a second."""
    now = iter([1000 + 1 + 9, 1000 + 10 + 0.5])
    monkeypatch.setattr(time, "time", lambda: next(now))
    printer = EventPrinter(["a", "b"], ["b"], 0.5, is_live=True)
    printer.begin("camera")
    for end, share in ((1.0, 0.1), (10.0, 0.9)):
        scores = np.array([1 - share, share])
        printer.window(ScoredWindow((1, 17), end - 1, end, scores))
    line = capsys.readouterr().err
    assert line.startswith(time.strftime("%Y-%m-%dT%H:%M:%S ", time.localtime(1009.5)))
