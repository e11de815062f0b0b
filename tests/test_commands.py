"""The helper that runs commands to their end notices what it is there to notice."""

import re
from contextlib import nullcontext

import pytest

from tests.commands import Command, run_command

ORPHAN = "import subprocess; subprocess.Popen(['sleep', '60'])"


def test_a_command_that_ends_tidily_passes():
    done = run_command("-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_a_command_that_hangs_fails():
    with pytest.raises(AssertionError, match="still runs after"):
        run_command("-c", "import time; time.sleep(60)", seconds=0.5)


def test_a_process_left_behind_fails_and_is_ended(monkeypatch):
    monkeypatch.setattr("tests.commands.LINGER", 0.2)
    orphans = re.compile("orphans.*sleep", re.DOTALL)
    with Command("-c", ORPHAN) as command, pytest.raises(AssertionError, match=orphans):
        command.finish()
    assert not command.processes()


def test_a_temporary_file_left_behind_fails():
    code = "import tempfile; tempfile.mkstemp(prefix='mine')"
    with pytest.raises(AssertionError, match=r"temporary files.*mine"):
        run_command("-c", code)


STARTING = """
import subprocess, time
for _ in range(500):
    subprocess.Popen(["sleep", "60"])
    time.sleep(0.01)
time.sleep(60)
"""


def test_processes_that_start_while_it_is_ended_are_ended():
    with Command("-c", STARTING) as command:
        command.wait_until(lambda: bool(command.processes()))
    assert not command.processes()


def test_a_condition_that_comes_true_at_the_end_holds():
    with Command("-c", "") as command:
        looks = iter([False, True])

        def holds():
            command.process.wait()
            return next(looks)

        command.wait_until(holds)
        with pytest.raises(AssertionError, match="ended early"):
            command.wait_until(lambda: False)


@pytest.mark.parametrize("is_own", [True, False])
def test_shared_memory_left_behind_fails(tmp_path, monkeypatch, is_own):
    """Unless it is left by a process of another test."""
    monkeypatch.setattr("tests.commands.SHARED_MEMORY", tmp_path)
    number = "os.getpid()" if is_own else "1 << 22"  # more than a system gives
    code = f"import os; open(f'torch_{{{number}}}_test', 'w')"
    with Command("-c", code, cwd=tmp_path) as command:
        fails = pytest.raises(AssertionError, match=r"shared memory.*_test")
        with fails if is_own else nullcontext():
            command.finish()
