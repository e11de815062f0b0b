"""Progress bars on a terminal, and lines in a log."""

import io
import logging
import re
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

import pytest

from tests.commands import PATIENCE, run_command
from tests.runs import make_dataset, small_run
from tests.videos import draw
from util_scripts import generate_video_jpgs
from utils import progress_bar as bars
from utils.progress_bar import Bar, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal():
    """Make standard error a terminal inside a `with` block, and record what it shows."""
    return redirect_stderr(Terminal())


@pytest.fixture
def ended(monkeypatch):
    """Record (title, done, total) of every bar at its end."""
    seen, leave = [], Bar.__exit__

    def note(bar, *error):
        seen.append((bar.title, bar._done, bar.total))
        leave(bar, *error)

    monkeypatch.setattr(Bar, "__exit__", note)
    return seen


def wait_until(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_bar_counts_and_its_clock_keeps_running(monkeypatch):
    monkeypatch.setattr(bars, "REDRAW_INTERVAL", 0.01)
    with terminal() as shown, Bar("epoch 1", 40, "clip") as bar:
        wait_until(lambda: shown.getvalue().count("0/40 [") > 3)
        bar.show(loss="0.500")
        bar.update(40)
        wait_until(lambda: "40/40" in shown.getvalue() and "loss=0.500" in shown.getvalue())
    assert " clips" in shown.getvalue()


def test_log_lines_appear_above_the_bar(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    with terminal() as shown, redirect_stdout(shown):
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        with Bar("epoch 1", 4, "clip"):
            logging.info("7 files are moved")
    assert re.search(r"^\s*7 files are moved$", shown.getvalue().replace("\r", "\n"), re.M)


def test_progress_is_logged_without_a_terminal(monkeypatch, caplog):
    caplog.set_level("INFO")
    with Bar("inference", 40, "clip") as bar:
        bar.update(10)
        assert not caplog.messages
        bar._logged -= bars.LOG_INTERVAL  # as if that time had passed
        bar.update(10)
        bar.update(10)
    [line] = caplog.messages
    pattern = r"inference: 20 of 40 clips in (\S+ s), about \1 left"
    assert re.fullmatch(pattern, line)


def test_other_processes_are_silent(caplog):
    caplog.set_level("INFO")
    with terminal() as shown, Bar("epoch 1", 4, "clip", is_silent=True) as bar:
        bar._logged -= bars.LOG_INTERVAL
        bar.update(4)
    assert not shown.getvalue()
    assert not caplog.messages


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--batch_size", "6"),
        ("--accumulate", "2", "--n_val_samples", "1"),
        ("--inference_crop", "nocrop", "--inference_stride", "4", "--inference_no_average"),
        ("--n_threads", "2", "--batch_size", "6", "--on_bad_video", "skip"),
    ],
)
def test_bars_reach_their_total(tmp_path, ended, flags):
    make_dataset(tmp_path)
    for path in (tmp_path / "jpg").glob("*/*_[24]/*.jpg"):  # one for training, one for validation
        if "--on_bad_video" in flags and "_00001" not in path.name and "_00020" not in path.name:
            path.write_bytes(b"")
    assert small_run(tmp_path, "--inference", *flags) == 0
    counts = {title.partition(",")[0]: (done, total) for title, done, total in ended}
    assert list(counts) == ["epoch 1 of 2", "validation 1", "epoch 2 of 2", "validation 2",
                            "inference"]  # fmt: skip
    assert counts["epoch 1 of 2"] == counts["epoch 2 of 2"] == (6, 6)
    assert counts["validation 1"] == counts["validation 2"] == (4, 4)
    done, total = counts["inference"]
    assert total >= 4 * 2
    assert done == total or "--on_bad_video" in flags


def test_bar_of_cached_features(tmp_path, ended):
    make_dataset(tmp_path)
    assert small_run(tmp_path) == 0
    ended.clear()
    flags = ["--pretrain_path", "res/save_2.pth", "--ft_begin_module", "fc", "--freeze_bn"]
    assert small_run(tmp_path, *flags, "--cache_features", "2", result="head") == 0
    assert ("features 2 of 2", 6, 6) in ended
    assert ("features of validation", 4, 4) in ended
    assert ("validation 2", 4, 4) in ended


def test_remaining_time_is_logged_after_each_epoch(tmp_path, capsys):
    make_dataset(tmp_path)
    with terminal() as shown:
        assert small_run(tmp_path, "--n_epochs", "3") == 0
    out = capsys.readouterr().out
    assert re.search(r"^epoch 1: val loss .*\nabout \S+ s left$", out, re.M)
    assert re.search(r"^epoch 2 of 3: .*, about \S+ s left$", out, re.M)
    assert re.search(r"epoch 3 of 3, about \S+ s left:", shown.getvalue())


def test_extraction_knows_its_total(tmp_path):
    for name in ("a/1", "a/2", "b/3"):
        draw(tmp_path / f"videos/{name}.mp4", seconds=0.5)
    folders = [str(tmp_path / "videos"), str(tmp_path / "jpg"), "own"]
    with terminal() as shown:
        assert generate_video_jpgs.main(folders) == 0
    assert "extraction:   0%" in shown.getvalue()
    assert "/3 [" in shown.getvalue()


def test_scripts_log_to_standard_error(tmp_path):
    draw(tmp_path / "videos/a/1.mp4", seconds=0.5)
    code = (
        "import sys; from utils import command_line as cli, progress_bar as bars; "
        "from util_scripts import generate_video_jpgs; "
        "bars.LOG_INTERVAL = 0; sys.argv[1:] = ['videos', 'jpg', 'own']; "
        "sys.exit(cli.run(generate_video_jpgs.main))"
    )
    done = run_command("-c", code, cwd=tmp_path)
    assert done.status == 0
    assert done.stdout.startswith("1 done, ")
    assert re.fullmatch(r"extraction: 1 of 1 videos in \S+ s, about 0.0 s left\n", done.stderr)


def test_durations():
    shown = {3.14: "3.1 s", 59: "59 s", 75: "1 min 15 s", 7300: "2 h 1 min", 200000: "55 h 33 min"}
    assert {seconds: duration(seconds) for seconds in shown} == shown
