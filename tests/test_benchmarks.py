"""The benchmarks, with tiny models on a CPU."""

import math
import multiprocessing
import threading
import time
from functools import partial

import pytest

from benchmarks.fresh_process import in_fresh_process
from benchmarks.timing import Comparison, compare


def test_a_comparison_takes_the_median_of_its_rounds():
    units = iter([1, 1, 10, 5, 20, 5, 30, 10])  # ours and plain alternate; the first pair warms up
    row = compare("x", "u", lambda: next(units), lambda: next(units), rounds=3, limit=1e12)
    assert isinstance(row, Comparison)
    assert row.ours > row.plain
    assert 0 < row.of_limit < 1


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
