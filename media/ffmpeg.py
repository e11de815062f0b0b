"""Find ffmpeg and run it. The only place that starts a process."""

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
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from errors import UserError
from media.ffmpeg_inputs import Argument, Piped, secrets_in
from media.ffmpeg_log import FfmpegLog, FfmpegRun

FRAME_TIME = re.compile(r" n: *\d+ pts: *\S+ pts_time:(\S+)")  # logged by the filter showinfo
LINE_BREAK = re.compile(r"[\r\n]+")
PIPE_BYTES = 1 << 20  # Linux's default maximum; a frame is 230 kB
COMMON_FLAGS = ("-nostdin", "-nostats", "-loglevel", "repeat+level+info")


class Stopped(Exception):
    """The run was ended, or prevented, by Ffmpeg.stop."""


class Ffmpeg:
    """Runs ffmpeg processes, and can end all running ones from any thread; a `with` block ends
    them on exit."""

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

        It does not touch the terminal; its output goes to the file descriptor `stdout`. Raises
        Stopped after stop().
        """
        process = self._start(arguments, cwd, stdout)
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            _kill(process)

        timer = threading.Timer(min(timeout, threading.TIMEOUT_MAX), end)
        if timeout:
            timer.start()
        try:
            log = FfmpegLog(secrets_in(arguments))
            with closing(_lines(process)) as lines:
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
        return log.summary(process.returncode)._replace(timed_out=timed_out.is_set())

    def stream(self, arguments: Sequence[Argument], *, read_timeout: float = 0) -> "Stream":
        """Start ffmpeg with its output on a pipe that the caller reads.

        A read that waits longer than `read_timeout` seconds (0: no limit) kills it.
        """
        process = self._start(arguments, None, subprocess.PIPE)
        return Stream(process, self._forget, secrets_in(arguments), read_timeout)

    def feed(self, arguments: Sequence[Argument]) -> "Stream":
        """Start ffmpeg with its input from a pipe that the caller writes."""
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
            words, descriptors = [], []
            for argument in arguments:
                if isinstance(argument, str):
                    words.append(argument)
                elif stdin == subprocess.DEVNULL:
                    stdin = _pipe_of(argument, pipes)
                    words.append("pipe:0")
                else:
                    descriptors.append(_pipe_of(argument, pipes))
                    words.append(f"pipe:{descriptors[-1]}")
            process = subprocess.Popen(
                [self.binary, *COMMON_FLAGS, *words],
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches only this process, which ends ffmpeg
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
    """A running ffmpeg: its pipe, and its log, which a thread reads so that ffmpeg never blocks."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        forget: Callable[[subprocess.Popen[bytes]], None],
        secrets: Sequence[str] = (),
        read_timeout: float = 0,
    ) -> None:
        self._process, self._forget = process, forget
        self._read_timeout, self._timed_out = read_timeout, False
        pipe = process.stdout or process.stdin
        assert pipe is not None
        self.pipe: IO[bytes] = pipe
        if read_timeout:
            self.pipe = io.BufferedReader(_PipeWithTimeout(pipe, read_timeout, self._give_up))
        if sys.platform == "linux":
            import fcntl

            with suppress(OSError):  # over the user's limit for pipes: slower, but no worse
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.log = FfmpegLog(secrets)
        self._times: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with closing(_lines(self._process)) as lines:
            for line in lines:
                if match := FRAME_TIME.search(line):
                    self._times.put(_number(match[1]))
                else:
                    self.log.add(line)
        self._times.put(None)

    def next_time(self) -> float | None:
        """Return the timestamp of the next frame in seconds; call it once per frame read.

        Needs the filter showinfo at the end. None if the frame has no timestamp or ffmpeg ended.
        """
        return self._times.get()

    def finish(self) -> FfmpegRun:
        """Close the pipe, wait for ffmpeg to exit, and return how it ended."""
        with suppress(BrokenPipeError):  # it ended before all was written; its log says why
            self.pipe.close()
        self._process.wait()
        self._thread.join()
        self._forget(self._process)
        ran = self.log.summary(self._process.returncode)
        return ran._replace(silent_for=self._read_timeout if self._timed_out else 0)

    def _give_up(self) -> None:
        self._timed_out = True
        self.kill()

    def kill(self) -> None:
        """Kill ffmpeg, from any thread; the thread that uses the pipe sees its end and calls
        finish."""
        _kill(self._process)


class _PipeWithTimeout(io.RawIOBase):
    """A pipe to read that calls `give_up`, from a thread, if a read waits longer than `timeout`
    seconds; `give_up` has to end the read."""

    def __init__(self, pipe: IO[bytes], timeout: float, give_up: Callable[[], None]) -> None:
        self._pipe, self._timeout, self._give_up = pipe, timeout, give_up
        self._waiting_since: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(min(1, self._timeout / 4)):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._timeout:
                self._give_up()
                return

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._pipe.fileno()

    def readinto(self, buffer: Any) -> int | None:
        self._waiting_since = time.monotonic()
        try:
            return self._pipe.raw.readinto(buffer)  # type: ignore[attr-defined]
        finally:
            self._waiting_since = None

    def close(self) -> None:
        self._closed.set()
        self._pipe.close()
        super().close()


def _pipe_of(argument: Piped, pipes: ExitStack) -> int:
    """Return the descriptor of a pipe that holds an argument's content; `pipes` closes it."""
    reading, writing = os.pipe()
    pipes.callback(os.close, reading)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(argument.content.encode())  # small enough for a pipe's buffer
    return reading


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # NOPTS
        return None


def _lines(process: subprocess.Popen[bytes]) -> Generator[str, None, None]:
    """Yield the lines that ffmpeg logs, except what follows a line break in a file's name: it could
    pass for a line of its own."""
    assert process.stderr is not None
    assert isinstance(process.args, list)
    broken = [LINE_BREAK.split(word)[1:] for word in process.args]
    middles = {piece for pieces in broken for piece in pieces[:-1]}
    ends = tuple(pieces[-1] for pieces in broken if pieces and pieces[-1])
    with io.TextIOWrapper(process.stderr, encoding="utf-8", errors="replace") as log:
        for line in log:
            if line.rstrip("\n") not in middles and not line.startswith(ends):
                yield line


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children, unless it has exited."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)


@cache
def find_ffmpeg() -> str:
    """Return $FFMPEG, else the binary of the package imageio-ffmpeg, else the one on PATH.

    Raises UserError if there is none.
    """
    chosen = os.environ.get("FFMPEG")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise UserError(f"$FFMPEG is {chosen!r}: no such program")
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: a package without a binary
        found = shutil.which("ffmpeg")
    if found is None:
        raise UserError("no ffmpeg found: pip install imageio-ffmpeg, or set $FFMPEG to its path")
    return found
