"""The benchmarks, with tiny models on a CPU."""

import json
import math
import multiprocessing
import threading
import time
from functools import partial

import pytest

from benchmarks import __main__ as program
from benchmarks import formats
from benchmarks.fresh_process import in_fresh_process
from benchmarks.timing import Comparison, compare
from errors import UserError


def test_a_comparison_takes_the_median_of_its_rounds():
    units = iter([1, 1, 10, 5, 20, 5, 30, 10])  # ours and plain alternate; the first pair warms up
    row = compare("x", "u", lambda: next(units), lambda: next(units), rounds=3, limit=1e12)
    assert isinstance(row, Comparison)
    assert row.ours > row.plain
    assert 0 < row.of_limit < 1


def test_results_are_written_after_every_section(tmp_path, monkeypatch):
    row = Comparison("x", "u", 2.0, 1.0, 2.0)

    def failing():
        yield row
        raise UserError("broken")

    monkeypatch.setattr(program, "tune_process", lambda device: None)
    monkeypatch.setattr(program, "SECTIONS", {"good": lambda: iter([row]), "bad": failing})
    path = tmp_path / "benchmarks.json"
    with pytest.raises(UserError, match="broken"):
        program.main(["--json", str(path)])
    assert json.loads(path.read_text())["rows"] == [row._asdict()]
    assert program.main(["good", "--json", str(path)]) == 0  # its own file
    with pytest.raises(UserError, match="no section goo: choose from good, bad"):
        program.main(["good", "goo"])
    path.write_text('{"labels": ["mine"]}')
    with pytest.raises(UserError, match="exists, and is not a result of the benchmarks"):
        program.main(["good", "--json", str(path)])


def test_formats_need_h5py(monkeypatch, capsys):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert not list(formats.comparisons())
    assert "formats: skipped, they need the package h5py" in capsys.readouterr().out


def test_a_fresh_process_returns_results_and_reports_failure():
    with in_fresh_process(partial, math.sqrt, 9.0) as work:
        assert [work(), work()] == [3.0, 3.0]
    failing = in_fresh_process(partial, math.sqrt, -1.0)
    with pytest.raises(RuntimeError, match="partial failed"), failing as work:
        work()


def forever():
    while True:
        time.sleep(1)


def test_a_fresh_process_is_terminated_if_the_caller_fails():
    with pytest.raises(KeyError), in_fresh_process(partial, forever) as work:
        threading.Thread(target=pytest.raises, args=((RuntimeError, OSError), work)).start()
        time.sleep(1)  # until it is running
        raise KeyError
    assert not multiprocessing.active_children()
