"""How often a program may be interrupted, and what it says then."""

import os
import signal
import time

import pytest

from errors import UserError
from tests.commands import ROOT, Command, run_command
from utils.interruption import GRACE, Interrupted, Interruption, resume_hint


def test_only_the_second_ctrl_c_interrupts_what_the_first_began():
    interruption = Interruption()
    for _ in range(2):
        with pytest.raises(Interrupted):
            interruption.request(signal.SIGINT)
    interruption.request(signal.SIGINT)  # the program is ending
    interruption._raised -= GRACE  # and hangs
    with pytest.raises(Interrupted):
        interruption.request(signal.SIGTERM)


def test_what_a_deferred_ctrl_c_waits_for_is_told(capfd):
    interruption = Interruption()
    with interruption.deferred("saving"):
        interruption.request(signal.SIGINT)
    assert capfd.readouterr().err == "saving\n"


def test_a_signal_while_another_ends_the_run_keeps_its_hint():
    with pytest.raises(Interrupted) as raised:  # noqa: SIM117
        with resume_hint("go on"):
            try:
                raise Interrupted(signal.SIGTERM, "saved; go on")
            finally:
                raise Interrupted(signal.SIGINT)
    assert (str(raised.value), raised.value.exit_status) == ("saved; go on", 130)


def test_an_error_that_an_interrupted_write_leads_to_is_no_error():
    with pytest.raises(Interrupted, match="go on"), resume_hint("go on"):
        try:
            raise Interrupted(signal.SIGINT)
        finally:
            raise RuntimeError("only part of it was written")


def test_a_signal_during_an_import_comes_after_it(tmp_path, monkeypatch):
    """Libraries go on with half a module, whatever ended its import."""
    names = []
    (tmp_path / "slow_module.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhole = True\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Interrupted), Interruption().handling_signals():
        names += dir(__import__("slow_module"))
        time.sleep(600)
    assert "whole" in names


def test_what_fails_while_a_run_ends_is_told_besides():
    with pytest.raises(Interrupted) as raised, resume_hint("go on"):
        try:
            raise Interrupted(signal.SIGINT)
        finally:
            raise UserError("the disk is full")
    assert str(raised.value.__cause__) == "the disk is full"


# Programs that hang: in an import, at exit, writing to standard error that nobody reads.
HANGING = {
    "import": "import time\nprint(1, flush=True)\ntime.sleep(600)",
    "exit": "import atexit, time\natexit.register(time.sleep, 600)\nprint(1, flush=True)",
    "stderr": "import sys\nprint(1, flush=True)\nsys.stderr.write('x' * 10**7)",
}
PROGRAM = """
import sys
from utils import interruption
from utils.command_line import run
interruption.GRACE = 0.5
def main(argv):
    if NAME == "import":
        import hanging
    exec(CODE)
    return 0
sys.exit(run(main))
"""


@pytest.mark.parametrize("name", HANGING)
def test_a_program_that_hangs_can_be_ended(tmp_path, name):
    (tmp_path / "hanging.py").write_text(HANGING[name], encoding="utf-8")
    reading, writing = os.pipe()
    code = f"NAME = {name!r}\nCODE = {HANGING[name]!r}\n{PROGRAM}"
    environ = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    stalled = (lambda: os.dup2(writing, 2)) if name == "stderr" else None
    with Command("-c", code, environ=environ, before=stalled) as command:
        command.wait_until(lambda: "1" in command.stdout)
        while command.process.poll() is None:
            command.process.terminate()
            time.sleep(0.1)
        # A shell calls both 143: one more may come where Python has given up its handlers.
        assert command.process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)
        assert "Traceback" not in command.stderr
    os.close(reading)
    os.close(writing)


def test_a_signal_that_is_ignored_stays_so():
    """As a shell does with SIGINT for a job in the background."""
    code = (
        "import os, signal, sys\nfrom utils.command_line import run\n"
        "sys.exit(run(lambda argv: os.kill(os.getpid(), signal.SIGINT) or 7))"
    )
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    assert run_command("-c", code, before=ignore).status == 7


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="no memory"), resume_hint("go on"):
        raise RuntimeError("no memory")
