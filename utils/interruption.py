"""SIGINT, SIGTERM and SIGHUP end a run at once, or at a safe point while a model is trained."""

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
    """The run was asked to end, by Ctrl-C or by another signal.

    `hint` tells how to go on, where there is something to go on from.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint or ("SIGPIPE" if number == SIGPIPE else signal.Signals(number).name))
        self.number = number
        self.hint = hint

    @property
    def exit_status(self) -> int:
        """As a shell reports a program that the signal ended."""
        return 128 + self.number


class Interruption:
    """Raises Interrupted on the first signal, or only notes it while deferred; then on any further
    Ctrl-C, for a user in a hurry. Other signals come several times by themselves: a batch system
    and a launcher both pass SIGTERM on, a shell and its terminal SIGHUP."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._deferred = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals here, until the end of the block; SIGHUP not under nohup(1)."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals go to the main thread, which is not ours
            return
        handled = [number for number in SIGNALS if not (number == SIGHUP and is_under_nohup())]
        before: dict[int, Any] = {number: signal.signal(number, self._note) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, the block itself looks at `asked` where it can be left."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def end_if_asked(self) -> None:
        """Raise Interrupted for a signal that was noted, where nothing has looked at it since."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def ask(self, number: int) -> None:
        """End the run as the signal of that number does."""
        is_first = self.asked is None
        if is_first:
            self.asked = number
        if (is_first and not self._deferred) or (not is_first and number == signal.SIGINT):
            raise Interrupted(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.ask(number)


def is_under_nohup() -> bool:
    """Whether nohup(1) started this process, which a closed terminal then leaves alone."""
    return SIGHUP is not None and signal.getsignal(SIGHUP) is signal.SIG_IGN


@contextmanager
def resume_hint(hint: str) -> Iterator[None]:
    """Add `hint`, how to resume, to a signal that ends the block at once."""
    try:
        yield
    except Interrupted as interrupted:
        raise Interrupted(interrupted.number, interrupted.hint or hint) from None
