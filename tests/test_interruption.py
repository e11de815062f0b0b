"""How often a program may be interrupted, and what it says then."""

import signal
import time

import pytest

from utils.interruption import Interrupted, Interruption, resume_hint


def test_only_the_second_ctrl_c_interrupts_what_the_first_began():
    interruption = Interruption()
    for _ in range(2):
        with pytest.raises(Interrupted):
            interruption.request(signal.SIGINT)
    interruption.request(signal.SIGINT)  # the program is ending


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


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="no memory"), resume_hint("go on"):
        raise RuntimeError("no memory")
