"""SIGINT and SIGTERM end a run at once, or at a safe point while a model is trained."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The run was asked to end; like KeyboardInterrupt no error, so no `except Exception` sees it.

    `hint` tells how to go on, where there is something to go on from.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint or signal.Signals(number).name)
        self.number = number
        self.hint = hint

    @property
    def exit_status(self) -> int:
        """As a shell reports a program that the signal ended."""
        return 128 + self.number


class Interruption:
    """Raises Interrupted on a signal; while deferred it only notes the first one."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._deferred = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals here, until the end of the block."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals go to the main thread, which is not ours
            return
        before: dict[int, Any] = {number: signal.signal(number, self._note) for number in SIGNALS}
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

    def ask(self, number: int) -> None:
        """End the run as the signal of that number does."""
        if not self._deferred or self.asked is not None:
            raise Interrupted(number)
        self.asked = number

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.ask(number)


@contextmanager
def going_on(hint: str) -> Iterator[None]:
    """Inside, a signal that ends the run at once leaves `hint` as the way to go on."""
    try:
        yield
    except Interrupted as interrupted:
        raise Interrupted(interrupted.number, interrupted.hint or hint) from None


def ignore_in_worker(worker: int) -> None:
    """A loader process leaves signals to the main one, which tells it when to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
