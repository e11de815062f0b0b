"""End a run on SIGINT, SIGTERM or SIGHUP: at once, or at a safe point during training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Windows has neither.
SIGHUP, SIGPIPE = getattr(signal, "SIGHUP", None), int(getattr(signal, "SIGPIPE", 13))
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([] if SIGHUP is None else [SIGHUP]))


class Interrupted(KeyboardInterrupt):
    """The run was interrupted by Ctrl-C or another signal; `hint` says how to resume it, if it can
    be resumed."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint or ("SIGPIPE" if number == SIGPIPE else signal.Signals(number).name))
        self.number = number
        self.hint = hint

    @property
    def exit_status(self) -> int:
        """The exit status that shells use for a program ended by this signal."""
        return 128 + self.number


class Interruption:
    """Raises Interrupted on the first signal, or only records it while deferred.

    A second Ctrl-C always raises. Other signals may arrive twice without meaning more: a batch
    system and a launcher both forward SIGTERM, a shell and its terminal both send SIGHUP.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._deferred = False

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle the signals inside the block; SIGHUP not if started by nohup(1)."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can handle signals
            return
        handled = [number for number in SIGNALS if not (number == SIGHUP and is_under_nohup())]
        before: dict[int, Any] = {number: signal.signal(number, self._handle) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only record signals inside the block, which checks `signal_number` at safe points."""
        self._deferred = True
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
        if (is_first and not self._deferred) or (not is_first and number == signal.SIGINT):
            raise Interrupted(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(number)


def is_under_nohup() -> bool:
    """Whether nohup(1) started this process, so that closing the terminal must not end it."""
    return SIGHUP is not None and signal.getsignal(SIGHUP) is signal.SIG_IGN


@contextmanager
def resume_hint(hint: str) -> Iterator[None]:
    """Add `hint`, how to resume the run, to an Interrupted that leaves the block without one."""
    try:
        yield
    except Interrupted as interrupted:
        raise Interrupted(interrupted.number, interrupted.hint or hint) from None
