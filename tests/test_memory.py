"""Freed memory stays with the process: the kernel's own counts of page faults tell."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from runtime.memory import keep_freed_memory
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed_memory()
for _ in range(30):  # at first each lies beside the last: a few bytes of its place are taken
    torch.ones(16 << 20)  # 64 MiB, more than glibc ever keeps by itself
before = faults()
for _ in range(10):
    torch.ones(16 << 20)
print(kept, faults() - before)
"""


def run(code, **environment):
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_used_again():
    kept, faults = run(FAULTS)
    assert kept == "True" and int(faults) < 100
    kept, faults = run(FAULTS, MALLOC_TRIM_THRESHOLD_="131072")  # as the user says
    assert kept == "False" and int(faults) > 100_000
