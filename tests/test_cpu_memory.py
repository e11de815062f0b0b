"""Freed memory stays with the process, in bounds, by the kernel's own counts."""

import multiprocessing

import pytest

from datasets import workers
from engine import cpu_memory as memory
from engine.cpu_memory import GLIBC_VARIABLES, MemoryBound
from tests.commands import run_command
from tests.runs import make_dataset, small_run

pytestmark = pytest.mark.numeric

FAULTS = """
import resource, sys
from engine.device import Normalization, choose_device, tune_process
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if "keep" in sys.argv:
    device = choose_device(
        no_cuda=True, precision="fp32", normalization=Normalization.of("kinetics")
    )
    tune_process(device)
for _ in range(30):  # at first each lies beside the last: a few bytes of its place are taken
    torch.ones(16 << 20)  # 64 MiB, more than glibc ever keeps by itself
before = faults()
for _ in range(10):
    torch.ones(16 << 20)
print(faults() - before)
"""

HELD = """
import sys
from pathlib import Path
from engine.cpu_memory import give_back, keep_freed_memory
import torch

keep_freed_memory()
torch.ones(64 << 20)  # 256 MiB
if "give" in sys.argv:
    give_back()
print(int(Path("/proc/self/statm").read_text().split()[1]) >> 8)
"""

has_mallopt = pytest.mark.skipif(memory._glibc() is None, reason="only glibc has mallopt")


@pytest.fixture(autouse=True)
def no_tuning(monkeypatch):
    for name in (*GLIBC_VARIABLES, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def number_of(code, *arguments, **environment):
    done = run_command("-c", code, *arguments, environ=environment)
    assert done.status == 0, done.stderr
    return int(done.stdout)


@has_mallopt
def test_freed_memory_is_used_again():
    by_itself = number_of(FAULTS)
    assert number_of(FAULTS, "keep") < by_itself / 20
    # As the user says; another tunable says nothing of it.
    assert number_of(FAULTS, "keep", MALLOC_TRIM_THRESHOLD_="131072") > by_itself / 2
    assert number_of(FAULTS, "keep", GLIBC_TUNABLES="glibc.malloc.arena_max=2") < by_itself / 20


@has_mallopt
def test_what_is_kept_can_be_given_back():
    assert number_of(HELD) - number_of(HELD, "give") > 200


def test_what_grows_is_given_back(monkeypatch):
    given = []
    held = iter([100, 104, 106, 90, 94, 95, 91])
    monkeypatch.setattr(memory, "_resident", lambda: next(held))
    monkeypatch.setattr(memory, "give_back", lambda: given.append(True))
    bounded, seen = MemoryBound(), []
    for _ in range(7):
        bounded.after_batch()
        seen.append(len(given))
    assert seen == [0, 0, 1, 1, 1, 2, 2]  # 94.5 is the new bound: the batch after took 90


def test_loaders_fork_no_more_than_is_needed(tmp_path, monkeypatch):
    make_dataset(tmp_path)
    children = []
    monkeypatch.setattr(
        workers, "give_back", lambda: children.append(len(multiprocessing.active_children()))
    )
    assert small_run(tmp_path, "--n_epochs", "1", "--n_threads", "1") == 0
    assert children == [0, 1]  # before the workers of training, and before those of validation
