"""ffmpeg: where it is, and how it is run. The only place that starts a process."""

import io
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from errors import UserError
from media.ffmpeg_inputs import Argument, Piped, redacted, secrets_in

# With -loglevel level+…: "[h264 @ 0x55d0] [error] message", "[error] message"
COMPLAINT = re.compile(r"^(?:\[[^\]]*\] )?\[(?:error|fatal|panic)\] (.*)$")
NOT_ALLOWED = re.compile(r"^\[([^ #]*).*\] \[error\] Format not on whitelist")
WRAPPED = re.compile(r"^(?:pipe:\d+|Error opening input): ")  # a cause repeated for a playlist
FACTS = {  # of the line that tells each; the first such line counts
    "version": re.compile(r"^\[info\] ffmpeg version (\S+)"),
    "input_format": re.compile(r"^(?:\[[^\]]*\] )*Input #0, (.+), from "),
    "duration": re.compile(r"^\[info\]   Duration: (\d+:\d\d:\d\d\.\d+)"),
    "stream": re.compile(r"^\[info\]   Stream #0:(\d+) -> #0:0 "),
    "n_frames": re.compile(r"^\[info\] frame= *(\d+)"),
}
INPUT_STREAM = re.compile(r"^\[info\]   Stream #0:(\d+)\D.*Video: .*")
RATE = re.compile(r" (\d+(?:\.\d+)?k?) fps")
CONFIGURED = re.compile(r"^\[Parsed_showinfo[^\]]*\] \[info\] config in ")
FRAME_TIME = re.compile(r" n: *\d+ pts: *\S+ pts_time:(\S+)")  # the filter showinfo's line
KEPT = 100  # complaints of one run: a damaged film has millions
PIPE_BYTES = 1 << 20  # as much as Linux gives to anyone; a frame is 230 kB
QUIET = ("-nostdin", "-nostats", "-loglevel", "repeat+level+info")


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
    n_frames: int = 0  # written
    silent_for: float = 0  # seconds without output, after which it was ended


class Ffmpeg:
    """Runs ffmpeg processes and can end all that are running, from any thread; a `with` block ends
    them where it is left."""

    def __init__(self) -> None:
        self.binary = find_ffmpeg()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> "Ffmpeg":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def run(
        self,
        arguments: Sequence[Argument],
        *,
        cwd: Path | None = None,
        timeout: float = 0,
        stdout: int = subprocess.DEVNULL,
    ) -> FfmpegRun:
        """Run ffmpeg to its end, or for `timeout` seconds (0: no limit).

        It reads no terminal input and leaves the terminal alone; what it writes goes to the file
        descriptor `stdout`. Raises Stopped after stop().
        """
        process = self._start(arguments, cwd, stdout)
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(timeout, end)
        if timeout:
            timer.start()
        try:
            log = Log(secrets_in(arguments))
            with _lines(process) as lines:
                for line in lines:
                    log.add(line)
            process.wait()
        except BaseException:
            _kill(process)
            raise
        finally:
            timer.cancel()
            self._forget(process)
        if self._stopped:
            raise Stopped
        return log.told(process.returncode)._replace(timed_out=late.is_set())

    def stream(self, arguments: Sequence[Argument], *, patience: float = 0) -> "Stream":
        """Start ffmpeg on `arguments`, whose output goes to a pipe that the caller reads.

        A read that waits longer than `patience` seconds (0: no limit) ends it.
        """
        process = self._start(arguments, None, subprocess.PIPE)
        return Stream(process, self._forget, secrets_in(arguments), patience)

    def feed(self, arguments: Sequence[Argument]) -> "Stream":
        """Start ffmpeg on `arguments`, whose input is a pipe that the caller writes."""
        process = self._start(arguments, None, subprocess.DEVNULL, stdin=subprocess.PIPE)
        return Stream(process, self._forget, secrets_in(arguments))

    def _start(
        self,
        arguments: Sequence[Argument],
        cwd: Path | None,
        stdout: int,
        *,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        with self._lock, ExitStack() as pipes:
            if self._stopped:
                raise Stopped
            given, descriptors = [], []
            for argument in arguments:
                if isinstance(argument, str):
                    given.append(argument)
                elif stdin == subprocess.DEVNULL:
                    stdin = _pipe_of(argument, pipes)
                    given.append("pipe:0")
                else:
                    descriptors.append(_pipe_of(argument, pipes))
                    given.append(f"pipe:{descriptors[-1]}")
            process = subprocess.Popen(
                [self.binary, *QUIET, *given],
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it
                pass_fds=descriptors,  # not on Windows
            )
            self._running.add(process)
        return process

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.discard(process)

    def stop(self) -> None:
        """End all running processes; later calls of run raise Stopped."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)


class Stream:
    """An ffmpeg at work: its pipe, and what it tells meanwhile, which a thread reads so that
    ffmpeg never waits for us."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        forget: Callable[[subprocess.Popen[bytes]], None],
        secrets: Sequence[str] = (),
        patience: float = 0,
    ) -> None:
        self._process, self._forget = process, forget
        self._patience, self._is_late = patience, False
        pipe = process.stdout or process.stdin
        assert pipe is not None
        self.pipe: IO[bytes] = pipe
        if patience:
            self.pipe = io.BufferedReader(_PatientPipe(pipe, patience, self._give_up))
        if sys.platform == "linux":
            import fcntl

            with suppress(OSError):  # a user's share of pipes may be used up: slower, no worse
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.log = Log(secrets)
        self._times: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with _lines(self._process) as lines:
            for line in lines:
                if match := FRAME_TIME.search(line):
                    self._times.put(_number(match[1]))
                else:
                    self.log.add(line)
        self._times.put(None)

    def next_time(self) -> float | None:
        """When the next frame is shown, seconds: once per frame read, if the filters end in
        SHOWINFO. None where it has no time, or ffmpeg has ended."""
        return self._times.get()

    def finish(self) -> FfmpegRun:
        """Close the pipe, let ffmpeg come to its end, and tell how it ended."""
        with suppress(BrokenPipeError):  # it ended before all was written: its log says why
            self.pipe.close()
        self._process.wait()
        self._thread.join()
        self._forget(self._process)
        ran = self.log.told(self._process.returncode)
        return ran._replace(silent_for=self._patience if self._is_late else 0)

    def _give_up(self) -> None:
        self._is_late = True
        self.kill()

    def kill(self) -> None:
        """End ffmpeg now, from any thread; whoever has the pipe comes to its end and finishes."""
        _kill(self._process)


class _PatientPipe(io.RawIOBase):
    """A pipe to read; `give_up`, which has to end it, is called from a thread where a read waits
    longer than `patience` seconds."""

    def __init__(self, pipe: IO[bytes], patience: float, give_up: Callable[[], None]) -> None:
        self._pipe, self._patience, self._give_up = pipe, patience, give_up
        self._waits_since: float | None = None
        self._is_closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._is_closed.wait(min(1, self._patience / 4)):
            since = self._waits_since
            if since is not None and time.monotonic() - since > self._patience:
                self._give_up()
                return

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._pipe.fileno()

    def readinto(self, buffer: Any) -> int | None:
        self._waits_since = time.monotonic()
        try:
            return self._pipe.raw.readinto(buffer)  # type: ignore[attr-defined]
        finally:
            self._waits_since = None

    def close(self) -> None:
        self._is_closed.set()
        self._pipe.close()
        super().close()


def _pipe_of(argument: Piped, pipes: ExitStack) -> int:
    """The descriptor of a pipe that holds an argument's content; closed by `pipes`."""
    reading, writing = os.pipe()
    pipes.callback(os.close, reading)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(argument.content.encode())  # no more than fits in a pipe
    return reading


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # NOPTS
        return None


def _lines(process: subprocess.Popen[bytes]) -> io.TextIOWrapper:
    assert process.stderr is not None
    return io.TextIOWrapper(process.stderr, encoding="utf-8", errors="replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started; one that is over and reaped is left alone."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)


class Log:
    """What ffmpeg's log tells, line by line."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = secrets  # of the arguments: no complaint holds them
        self._complaints: list[str] = []
        self._facts: dict[str, str] = {}
        self._rates: dict[str, str] = {}  # of the input's video streams
        self.n_graphs = 0  # times the filters were configured, if showinfo is among them

    def add(self, line: str) -> None:
        if match := COMPLAINT.match(line):
            complaint = WRAPPED.sub("", match[1].strip())
            if refused := NOT_ALLOWED.match(line):
                kind = f" ({refused[1]})" if refused[1] != "in" else ""
                complaint = f"not a video, but sound, a picture, a playlist or a script{kind}"
            if not complaint.startswith("Impossible to open '"):  # its cause is the next one
                self._complaints.append(redacted(complaint, self._secrets))
            if len(self._complaints) > KEPT:
                del self._complaints[KEPT // 2]
            return
        self.n_graphs += CONFIGURED.match(line) is not None
        for name, pattern in FACTS.items():
            if name not in self._facts and (match := pattern.match(line)):
                self._facts[name] = match[1]
        if "stream" not in self._facts and (match := INPUT_STREAM.match(line)):
            if rate := RATE.search(line):
                self._rates[match[1]] = rate[1].replace("k", "000")

    def told(self, returncode: int = 0) -> FfmpegRun:
        """What was told until now."""
        facts = self._facts
        rate = self._rates.get(facts.get("stream", ""))
        return FfmpegRun(
            returncode,
            facts.get("input_format"),
            list(self._complaints),
            version=facts.get("version"),
            seconds=_in_seconds(facts["duration"]) if "duration" in facts else None,
            rate=None if rate is None else float(rate),
            n_frames=int(facts.get("n_frames", 0)),
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
