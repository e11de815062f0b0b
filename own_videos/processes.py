"""Run a command of this project as a process that gets this program's signals, once each."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from own_videos.commands import python_command
from utils.interruption import Interrupted


def run_shown(words: Sequence[str]) -> int:
    """Run a command with its output on the terminal; return its exit status."""
    return _run(words, None)


def run_quietly(words: Sequence[str], log: Path) -> int:
    """Run a command with its output at the end of a file; return its exit status."""
    with log.open("ab") as output:
        return _run(words, output.fileno())


def _run(words: Sequence[str], output: int | None) -> int:
    command, environment = python_command(words)
    sys.stdout.flush()
    # In a session of its own, it gets no Ctrl-C from the terminal besides the one passed on here:
    # the second would end it before it has saved.
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    number = 0
    while True:
        try:
            status = process.wait()
            break
        except Interrupted as interrupted:
            number = interrupted.number
            _pass_on(process, number)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if number:
        raise Interrupted(number)
    return status


def _pass_on(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal on; a lost output is what the process notices itself."""
    if sys.platform == "win32":
        process.terminate()
    else:
        process.send_signal(signal.SIGTERM if number == signal.SIGPIPE else number)
