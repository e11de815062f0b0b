"""The helper that runs commands to their end notices what it is there to notice."""

import re

import pytest

from tests.commands import SHARED_MEMORY, Command, run_command

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


def test_shared_memory_left_behind_fails():
    code = (
        "import os; from pathlib import Path;"
        "Path(f'/dev/shm/torch_{os.getpid()}_test').write_bytes(b'x')"
    )
    with Command("-c", code) as command:
        try:
            with pytest.raises(AssertionError, match=r"shared memory.*_test"):
                command.finish()
        finally:
            (SHARED_MEMORY / f"torch_{command.process.pid}_test").unlink(missing_ok=True)
