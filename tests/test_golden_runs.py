"""Whole command lines against what the original wrote for them (tests/golden/README.md)."""

import json

import pytest
import torch

from tests.runs import GOLDEN, as_of_the_original, read_table, run_golden
from tests.videos import SHARED

pytestmark = pytest.mark.numeric

FIGHT = SHARED / "golden/fight"


@pytest.fixture(autouse=True)
def two_threads():
    """As the original ran: training amplifies the order in which threads sum."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def cases(folder):
    """The command lines of a golden folder. Its absence is an error, but of shared clips a skip."""
    if folder == FIGHT and not (folder / "expected.json").exists():
        return []
    text = (folder / "expected.json").read_text(encoding="utf-8")
    return list(json.loads(text).items())


def compare_results(ours, expected):
    assert list(ours["results"]) == list(expected["results"])
    for video, entries in expected["results"].items():
        for got, want in zip(ours["results"][video], entries, strict=True):
            if "segment" in want:
                assert got["segment"] == want["segment"]
                got, want = {"r": got["result"]}, {"r": want["result"]}
            compare_entries(got.get("r", [got]), want.get("r", [want]))


def compare_entries(got, want):
    assert [e["label"] for e in got] == [e["label"] for e in want]
    for one, other in zip(got, want, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=3e-4)


def compare_files(case, result, *, after_epoch=0):
    """What a run wrote against what a case expects, of the logs what comes after an epoch."""
    compared = 0
    for name, expected in case.items():
        if name in ("checkpoint", "args"):
            continue
        compared += 1
        if name.endswith(".json"):
            compare_results(json.loads((result / name).read_text(encoding="utf-8")), expected)
        elif name.endswith(".log"):
            ours, theirs = read_table((result / name).read_text()), read_table(expected)
            theirs = [row for row in theirs if row["epoch"] > after_epoch]
            for got, want in zip(ours, theirs, strict=True):
                assert {key: got[key] for key in want} == pytest.approx(want, rel=1e-3)
        else:
            saved = torch.load(result / name, weights_only=True)["state_dict"]
            for tensor, total in expected.items():
                assert saved[tensor].sum().item() == pytest.approx(total, rel=1e-3, abs=1e-3)
    assert compared > 0


@pytest.mark.parametrize(("name", "case"), cases(GOLDEN / "motion"))
def test_motion(name, case, tmp_path):
    compare_files(case, run_golden(case, GOLDEN / "motion", tmp_path))


@pytest.mark.parametrize(("name", "case"), cases(GOLDEN / "training"))
def test_training(name, case, tmp_path):
    """From its start and, half way, from a file as the original would have written it."""
    (tmp_path / "whole").mkdir()
    whole = {**case, "args": [*case["args"], "--checkpoint", "2"]}
    result = run_golden(whole, GOLDEN / "training", tmp_path / "whole")
    compare_files(case, result)
    if "save_4.pth" not in case:
        return
    theirs = tmp_path / "theirs.pth"
    torch.save(as_of_the_original(torch.load(result / "save_2.pth", weights_only=True)), theirs)
    resumed = {**case, "args": [*case["args"], "--resume_path", str(theirs)]}
    result = run_golden(resumed, GOLDEN / "training", tmp_path)
    compare_files(case, result, after_epoch=2)


@pytest.mark.parametrize(("name", "case"), cases(FIGHT))
def test_fight(name, case, tmp_path):
    compare_files(case, run_golden(case, FIGHT, tmp_path))
