"""ffmpeg: where it is, and how it is run. The only place that starts a process."""

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from errors import UserError

# With -loglevel level+…: "[h264 @ 0x55d0] [error] message", "[error] message"
COMPLAINT = re.compile(r"^(?:\[[^\]]*\] )?\[(?:error|fatal|panic)\] (.*)$")
FACTS = {  # of the line that tells each; the first such line counts
    "version": re.compile(r"^\[info\] ffmpeg version (\S+)"),
    "input_format": re.compile(r"^(?:\[[^\]]*\] )*Input #0, (.+), from "),
    "duration": re.compile(r"^\[info\]   Duration: (\d+:\d\d:\d\d\.\d+)"),
    "stream": re.compile(r"^\[info\]   Stream #0:(\d+) -> #0:0 "),
}
INPUT_STREAM = re.compile(r"^\[info\]   Stream #0:(\d+)\D.*Video: .*")
RATE = re.compile(r" (\d+(?:\.\d+)?k?) fps")
KEPT = 100  # complaints of one run: a damaged film has millions


class Stopped(Exception):
    """The run was ended by Ffmpeg.stop, or never begun."""


class FfmpegRun(NamedTuple):
    """How one run of ffmpeg ended, and what it said about its input and itself."""

    returncode: int
    input_format: str | None  # as ffmpeg names it, e.g. "mov,mp4,m4a,3gp,3g2,mj2"
    complaints: list[str]  # its error lines, in order; of many the first and the last
    timed_out: bool = False
    version: str | None = None
    seconds: float | None = None  # the input's duration
    rate: float | None = None  # frames per second of the stream that was read


class Ffmpeg:
    """Runs ffmpeg processes and can end all that are running, from any thread."""

    def __init__(self) -> None:
        self.binary = find_ffmpeg()
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        timeout: float = 0,
        stdout: int = subprocess.DEVNULL,
    ) -> FfmpegRun:
        """Run ffmpeg to its end, or for `timeout` seconds (0: no limit).

        It reads no terminal input and leaves the terminal alone; what it writes goes to the file
        descriptor `stdout`. Raises Stopped after stop().
        """
        command = [self.binary, "-nostdin", "-nostats", "-loglevel", "repeat+level+info"]
        process = self._start([*command, *arguments], cwd, stdout)
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(timeout, end)
        if timeout:
            timer.start()
        try:
            assert process.stderr is not None
            with process.stderr:
                log = _read_log(process.stderr)
            process.wait()
        finally:
            timer.cancel()
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            raise Stopped
        return log._replace(returncode=process.returncode, timed_out=late.is_set())

    def _start(self, command: list[str], cwd: Path | None, stdout: int) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise Stopped
            process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it
            )
            self._running.add(process)
        return process

    def stop(self) -> None:
        """End all running processes; later calls of run raise Stopped."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and what it started; one that is over and reaped is left alone."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _read_log(lines: Iterable[str]) -> FfmpegRun:
    """What ffmpeg's log tells, line by line; the status is not known yet."""
    complaints: list[str] = []
    facts: dict[str, str] = {}
    rates: dict[str, str] = {}  # of the input's video streams
    for line in lines:
        if match := COMPLAINT.match(line):
            complaints.append(match[1].strip())
            if len(complaints) > KEPT:
                del complaints[KEPT // 2]
            continue
        for name, pattern in FACTS.items():
            if name not in facts and (match := pattern.match(line)):
                facts[name] = match[1]
        if "stream" not in facts and (match := INPUT_STREAM.match(line)):
            if rate := RATE.search(line):
                rates[match[1]] = rate[1].replace("k", "000")
    told = rates.get(facts.get("stream", ""))
    return FfmpegRun(
        0,
        facts.get("input_format"),
        complaints,
        version=facts.get("version"),
        seconds=_in_seconds(facts["duration"]) if "duration" in facts else None,
        rate=None if told is None else float(told),
    )


def _in_seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 2)


@cache
def find_ffmpeg() -> str:
    """$FFMPEG, else the binary of the package imageio-ffmpeg, else the one on PATH.

    Raises UserError where there is none.
    """
    chosen = os.environ.get("FFMPEG")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise UserError(f"$FFMPEG is {chosen!r}, which is no program")
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: a package without a binary
        found = shutil.which("ffmpeg")
    if found is None:
        raise UserError("no ffmpeg: pip install imageio-ffmpeg, or name one in $FFMPEG")
    return found


def input_of(path: Path) -> list[str]:
    """The arguments that open a file and nothing else, whatever its name holds."""
    return ["-protocol_whitelist", "file", "-threads", "1", "-i", f"file:{path.absolute()}"]
