"""End a run on SIGINT, SIGTERM or SIGHUP: at once, or at a safe point during training."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# Windows has neither.
SIGHUP, SIGPIPE = getattr(signal, "SIGHUP", None), int(getattr(signal, "SIGPIPE", 13))
IMPORTING = "<frozen importlib._bootstrap>"  # file of the functions that import
POSTPONED = 0.05  # seconds
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

    A second Ctrl-C raises, too; those after it would only interrupt what ends the program. Other
    signals may arrive twice without meaning more: a batch system and a launcher both forward
    SIGTERM, a shell and its terminal both send SIGHUP.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._deferred = False
        self._is_ending = False
        self._notice = ""

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle the signals inside the block; SIGHUP not if started by nohup(1)."""
        before: dict[int, Any] = {n: signal.signal(n, self._handle) for n in _signals()}
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

    def raise_if_requested(self) -> None:
        """Raise Interrupted if a signal was recorded."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def request(self, number: int) -> None:
        """Act as if the signal `number` had arrived."""
        is_first = self.signal_number is None
        if is_first:
            self.signal_number = number
            if self._deferred:
                if number == signal.SIGINT and self._notice:
                    with suppress(OSError):  # not sys.stderr, which this may have interrupted
                        os.write(2, f"{self._notice}\n".encode())
                return
        elif number != signal.SIGINT or self._is_ending:
            return
        else:
            self._is_ending = True
        raise Interrupted(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not _is_postponed(number, frame):
            self.request(number)


def end_on_signals() -> None:
    """Raise Interrupted on the first signal outside of `Interruption.handling_signals`, and ignore
    those after it: the program is ending."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _is_postponed(number, frame):
            ignore_signals()
            raise Interrupted(number)

    for number in _signals():
        signal.signal(number, interrupt)


def _is_postponed(number: int, frame: FrameType | None) -> bool:
    """Whether a signal came during an import; it is then sent again a little later.

    Libraries catch whatever ends an import of theirs, and go on with half a module.
    """
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    if frame is not None:
        threading.Timer(POSTPONED, os.kill, (os.getpid(), number)).start()
    return frame is not None


def ignore_signals() -> None:
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)


def _signals() -> tuple[signal.Signals, ...]:
    """Return the signals to handle: none outside the main thread, which alone can handle them."""
    if threading.current_thread() is not threading.main_thread():
        return ()
    return tuple(n for n in SIGNALS if not (n == SIGHUP and is_under_nohup()))


def is_under_nohup() -> bool:
    """Whether nohup(1) started this process, so that closing the terminal must not end it."""
    return SIGHUP is not None and signal.getsignal(SIGHUP) is signal.SIG_IGN


@contextmanager
def resume_hint(hint: str | Callable[[], str]) -> Iterator[None]:
    """Add `hint`, how to resume the run, to an Interrupted that leaves the block without one.

    A function is called only then.

    An error that leaves the block because of an Interrupted, as of a file that was being written,
    becomes one.
    """
    try:
        yield
    except (Interrupted, Exception) as error:
        for cause in _contexts(error):
            if isinstance(cause, Interrupted):
                told = hint if isinstance(hint, str) else hint()
                raise Interrupted(cause.number, cause.hint or told) from None
        raise


def _contexts(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what was being handled when it was raised."""
    while error is not None:
        yield error
        error = error.__context__
