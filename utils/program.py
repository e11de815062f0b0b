"""Start and end a program: standard streams, encoding of file names, exit status."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from errors import UserError
from utils.interruption import SIGPIPE, Interrupted, ProgramSignals
from utils.limits import allow_more_open_files

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What a file system says of a file that is there but can't be reached.
FILE_ERRORS = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ELOOP)
UTF8_MODE = "PYTHONUTF8"  # environment variable: "1" means UTF-8 in any locale
# Environment variable: set by a program for those that it starts, and whose interruption it reports
# itself.
REPORTED_BY_PARENT = "INTERRUPTION_REPORTED_BY_PARENT"


class OutputLost(KeyboardInterrupt):
    """Standard output can no longer be written."""

    exit_status = 128 + SIGPIPE


class GuardedFile(io.FileIO):
    """Standard output or error. The first error is kept as `lost` and calls `on_lost`; everything
    written after it is discarded."""

    def __init__(self, number: int, on_lost: Callable[[], None]) -> None:
        super().__init__(number, "w", closefd=False)
        self.on_lost = on_lost
        self.lost: OSError | None = None

    def write(self, data: Any) -> int:
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
                self.on_lost()
        return memoryview(data).nbytes

    def discard(self) -> None:
        """Discard what is still written."""
        self.lost = self.lost or InterruptedError(errno.EINTR, os.strerror(errno.EINTR))


def run_program(main: Callable[[], int]) -> int:
    """Run `main` and return the exit status.

    2 after a UserError, whose lines go to standard error, and after an error of the file system;
    128 + signal number after an Interrupted (130 for Ctrl-C); 141 if the reader of standard output
    has gone, as for a program ended by SIGPIPE. In that case `main` sees an OutputLost, see
    on_output_lost. A further Ctrl-C does not interrupt what Python does at exit.
    """
    _decode_file_names_as_utf8()
    allow_more_open_files()
    _open_closed_streams()
    out = _guard("stdout", _interrupt)
    _guard("stderr", _ignore)
    signals = ProgramSignals()
    signals.handle()
    try:
        status = _run(main, out)
        if out is not None:
            out.on_lost = _ignore
            sys.stdout.flush()
    except KeyboardInterrupt as asked:  # while the program was ending
        status = _report_interruption(asked, out)
        if out is not None:
            out.discard()  # or Python, which flushes at exit, waits for a reader that does not read
    finally:
        signals.begin_ending()
        if out is not None:
            out.on_lost = _ignore
    # A closed terminal takes the output with it.
    if out is None or out.lost is None or status == 128 + signal.SIGHUP:
        return status
    if out.lost.errno == errno.EINTR:
        return status
    if out.lost.errno == errno.EPIPE:
        return OutputLost.exit_status
    _print_error(f"standard output: can't be written: {out.lost.strerror}")
    return 2


@contextmanager
def on_output_lost(on_lost: Callable[[], None]) -> Iterator[None]:
    """Inside the block, call `on_lost` instead of raising OutputLost."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, GuardedFile):
        yield  # not started by run_program
        return
    before, raw.on_lost = raw.on_lost, on_lost
    try:
        yield
    finally:
        raw.on_lost = before


def _run(main: Callable[[], int], out: GuardedFile | None) -> int:
    try:
        return main()
    except SystemExit as ended:  # argparse, after -h
        if not isinstance(ended.code, int | None):
            raise
        return ended.code or 0
    except KeyboardInterrupt as asked:
        return _report_interruption(asked, out)
    except (UserError, OSError) as error:
        if (message := _message_of(error)) is None:
            raise
        _print_error(message)
        return 2


def _message_of(error: BaseException | None) -> str | None:
    """Return what a user is told of an error, None if it is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if not isinstance(error, OSError):
        return None
    is_full = error.errno in DISK_ERRORS
    if not is_full and (error.errno not in FILE_ERRORS or error.filename is None):
        return None
    place = "" if error.filename is None else f"{error.filename}: "
    what = "can't be written: " if is_full else ""
    return f"{place}{what}{error.strerror}"


def _report_interruption(asked: KeyboardInterrupt, out: GuardedFile | None) -> int:
    if (message := _message_of(asked.__cause__)) is not None:
        _print_error(message)
    hint = asked.hint if isinstance(asked, Interrupted) else ""
    is_told = REPORTED_BY_PARENT in os.environ
    if not is_told and (hint or out is None or out.lost is None):
        print(f"interrupted: {hint}" if hint else "interrupted", file=sys.stderr)
    return asked.exit_status if isinstance(asked, Interrupted) else 128 + signal.SIGINT


def _print_error(text: str) -> None:
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)


def _decode_file_names_as_utf8() -> None:
    """Restart in UTF-8 mode if file names would be ASCII: in the C locale with PEP 540 turned off.

    Labels are folder names, and may be in any script.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get(UTF8_MODE) != "1":
        os.environ[UTF8_MODE] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _open_closed_streams() -> None:
    """Redirect missing standard streams to /dev/null, so that no file opened later gets their
    descriptors."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_WRONLY)
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _guard(name: str, on_lost: Callable[[], None]) -> GuardedFile | None:
    """Put a GuardedFile under sys.stdout or sys.stderr; characters that the encoding lacks are
    printed escaped."""
    stream = getattr(sys, name)
    if not isinstance(stream, io.TextIOWrapper):
        return None  # replaced by the caller
    stream.flush()
    raw = GuardedFile(stream.fileno(), on_lost)
    guarded = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )
    setattr(sys, name, guarded)
    return raw


def _interrupt() -> None:
    raise OutputLost


def _ignore() -> None:
    pass
