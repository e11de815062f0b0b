"""End a run on SIGINT, SIGTERM or SIGHUP: at once, or at a safe point during training."""

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from errors import UserError

# Windows has neither.
SIGHUP, SIGPIPE = getattr(signal, "SIGHUP", None), int(getattr(signal, "SIGPIPE", 13))
IMPORTING = "<frozen importlib._bootstrap>"  # file of the functions that import
POSTPONED = 0.05  # seconds after which a signal during an import is sent again
GRACE = 5.0  # seconds for an import, or for what ends the program; no signal waits longer
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([] if SIGHUP is None else [SIGHUP]))


class Interrupted(KeyboardInterrupt):
    """The run was interrupted by Ctrl-C or another signal; `hint` says how to resume it, if it can
    be resumed."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint or ("SIGPIPE" if number == SIGPIPE else signal.Signals(number).name))
        self.number = number
        self._hint = hint

    @property
    def hint(self) -> str:
        """How to resume the run, also if this was raised while an earlier one ended the program."""
        hints = [error._hint for error in _contexts(self) if isinstance(error, Interrupted)]
        return next(filter(None, hints), "")

    @property
    def exit_status(self) -> int:
        """The exit status that shells use for a program ended by this signal."""
        return 128 + self.number


class Interruption:
    """Raises Interrupted on the first signal, or only records it while deferred.

    A second Ctrl-C raises, too, unless the block that deferred the first has ended. Signals after
    it would only interrupt what ends the program, and raise if that takes longer than GRACE. Other
    signals may arrive twice without meaning more: a batch system and a launcher both forward
    SIGTERM, a shell and its terminal both send SIGHUP.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._deferred = False
        self._notice = ""
        self._was_hurried = False
        self._raised = float("inf")  # when it raised last

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle the signals inside the block, but not those that are ignored."""
        before: dict[int, Any] = {n: signal.signal(n, self._handle) for n in heeded_signals()}
        try:
            with resume_hint(""):
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self, notice: str = "") -> Iterator[None]:
        """Only record signals inside the block, which checks `signal_number` at safe points.

        `notice` is printed on Ctrl-C, since the next safe point may be some time away.
        """
        self._deferred, self._notice = True, notice
        try:
            yield
        finally:
            self._deferred = False
            if self.signal_number is not None:  # then the run is ending
                self._was_hurried, self._raised = True, time.monotonic()

    def raise_if_requested(self) -> None:
        """Raise Interrupted if a signal was recorded."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def request(self, number: int) -> None:
        """Act as if the signal `number` had arrived."""
        if self.signal_number is None:
            self.signal_number = number
            if self._deferred:
                if number == signal.SIGINT and self._notice:
                    with suppress(OSError):  # not sys.stderr, which this may have interrupted
                        os.write(2, f"{self._notice}\n".encode())
                return
        elif number == signal.SIGINT and not self._was_hurried:
            self._was_hurried = True
        elif time.monotonic() - self._raised < GRACE:
            return
        self._raised = time.monotonic()
        raise Interrupted(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not _imports.postpone(number, frame):
            self.request(number)


class ProgramSignals:
    """The signals of a program outside of `Interruption.handling_signals`: the first one raises
    Interrupted. Then the program is ending, and one ends it at once only if that hangs."""

    def __init__(self) -> None:
        self._is_ending_since: float | None = None

    def handle(self) -> None:
        """Handle the signals from now on, but not those that are ignored."""
        handled = heeded_signals()
        for number in handled:
            signal.signal(number, self._interrupt)
        if signal.SIGINT in handled:
            # Where Python takes itself apart, one more Ctrl-C would change the exit status.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)

    def begin_ending(self) -> None:
        if self._is_ending_since is None:
            self._is_ending_since = time.monotonic()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_ending_since is None:
            if not _imports.postpone(number, frame):
                self.begin_ending()
                raise Interrupted(number)
        elif time.monotonic() - self._is_ending_since > GRACE:
            os._exit(128 + number)


class _Imports:
    """Sends signals that come during an import again a little later: libraries catch whatever ends
    an import of theirs, and go on with half a module."""

    def __init__(self) -> None:
        self._since: float | None = None

    def postpone(self, number: int, frame: FrameType | None) -> bool:
        """Return whether the signal is postponed, which it is for GRACE at most."""
        while frame is not None and frame.f_code.co_filename != IMPORTING:
            frame = frame.f_back
        if frame is None:
            self._since = None
            return False
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > GRACE:
            return False
        timer = threading.Timer(POSTPONED, _send, (number,))
        timer.daemon = True
        timer.start()
        return True


_imports = _Imports()


def _send(number: int) -> None:
    if sys.platform == "win32":  # where os.kill would end the process
        _thread.interrupt_main(number)
    else:
        os.kill(os.getpid(), number)


def heeded_signals() -> tuple[signal.Signals, ...]:
    """Return the signals to handle: not those that are ignored, by nohup(1) or by a shell for a job
    in the background; and none outside the main thread, which alone can handle them."""
    if threading.current_thread() is not threading.main_thread():
        return ()
    return tuple(number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)


@contextmanager
def resume_hint(hint: str | Callable[[], str]) -> Iterator[None]:
    """Add `hint`, how to resume the run, to an Interrupted that leaves the block without one.

    A function is called only then. An error that leaves the block because of an Interrupted, as of
    a file that was being written, becomes one; errors that a user can mend are its cause.
    """
    try:
        yield
    except (Interrupted, Exception) as error:
        interrupted = interruption_behind(error)
        if interrupted is None:
            raise
        kept = error if isinstance(error, UserError | OSError) else error.__cause__
        told = hint if isinstance(hint, str) else hint()
        raise Interrupted(interrupted.number, interrupted.hint or told) from kept


def interruption_behind(error: BaseException) -> Interrupted | None:
    """Return the Interrupted that was being handled when an error was raised, or the error if it is
    one."""
    return next((e for e in _contexts(error) if isinstance(e, Interrupted)), None)


def _contexts(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__
