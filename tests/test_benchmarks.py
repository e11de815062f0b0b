"""The benchmarks, with tiny models on a CPU."""

import json
import math
import multiprocessing
import threading
import time
from functools import partial

import pytest
import torch

import benchmarks.__main__ as bench
from benchmarks import gpu, limits
from benchmarks.fresh_process import in_fresh_process
from benchmarks.timing import Comparison, compare
from engine.device import Normalization, choose_device
from models.build import build


def test_the_rows_of_one_model(monkeypatch):
    def tiny(family, depth, *, n_classes):
        return build(family, depth, n_classes=n_classes, resnet_widen_factor=0.125)

    monkeypatch.setattr(gpu, "build", tiny)
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(limits, "SIDES", {"cpu": (64, 1)})
    device = choose_device(
        no_cuda=True, precision="fp32", normalization=Normalization.of("kinetics")
    )
    rows = list(gpu.of_model("resnet", device, batch_size=2, depth=10, side=16, compiles=(False,)))
    assert [row.name for row in rows] == [
        "training step, R3D-10, batch 2, all of it, fp32",
        "training step, R3D-10, batch 2, head only, fp32",
        "inference, R3D-10, batch 2, fp32",
    ]
    for row in rows:
        assert row.unit == "clips/s"
        assert min(row.ours, row.plain, row.ratio) > 0
        assert row.of_limit > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_section_is_skipped_without_a_gpu(tmp_path, capsys):
    assert bench.main(["gpu", "--json", str(tmp_path / "out.json")]) == 0
    assert "gpu: skipped, torch sees no GPU" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == []


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
