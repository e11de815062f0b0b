"""Progress of a phase: a bar on a terminal, otherwise a line in the log now and then."""

import logging
import threading
import time
from contextlib import ExitStack

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

REDRAW_INTERVAL = 1.0  # seconds; keeps a bar's clock running during a long batch
LOG_INTERVAL = 60.0  # seconds between lines without a terminal

log = logging.getLogger("progress")


class Bar:
    """Counts up to `total` clips or videos; use it in a `with` block."""

    def __init__(
        self, title: str, total: int, unit: str, *, initial: int = 0, is_silent: bool = False
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self._initial = self._done = initial
        self._is_silent = is_silent
        self._started = self._logged = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> "Bar":
        self._context = ExitStack()
        self._tqdm = self._context.enter_context(
            tqdm(
                desc=self.title,
                total=self.total,
                unit=f" {self.unit}s",
                initial=self._initial,
                leave=False,
                disable=True if self._is_silent else None,
                nrows=20,  # so that it shows on a terminal of unknown size
            )
        )
        if not self._tqdm.disable:
            self._context.enter_context(logging_redirect_tqdm())  # above the bar, not behind it
            redrawing = threading.Thread(target=self._redraw, daemon=True)
            redrawing.start()
            self._context.callback(redrawing.join)
            self._context.callback(self._ended.set)
        return self

    def __exit__(self, *error: object) -> None:
        self._context.close()

    def show(self, **notes: str) -> None:
        """Show the notes behind the bar from the next update on."""
        self._tqdm.set_postfix(notes, refresh=False)

    def update(self, n: int) -> None:
        """Count `n` more as done."""
        self._done += n
        self._tqdm.update(n)
        now = time.monotonic()
        if self._tqdm.disable and not self._is_silent and now - self._logged >= LOG_INTERVAL:
            self._logged = now
            log.info("%s", str(self))  # now, whenever it is formatted

    def _redraw(self) -> None:
        while not self._ended.wait(REDRAW_INTERVAL):
            self._tqdm.refresh()

    def __str__(self) -> str:
        seconds, done = time.monotonic() - self._started, self._done - self._initial
        left = ""
        if done:
            left = f", about {duration(seconds / done * (self.total - self._done))} left"
        count = f"{self._done} of {self.total} {self.unit}s"
        return f"{self.title}: {count} in {duration(seconds)}{left}"


def duration(seconds: float) -> str:
    """Format with at most two units: 75 -> 1 min 15 s."""
    for size, unit, smaller, small in ((3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = int(seconds % size // smaller)
            return f"{int(seconds // size)} {unit} {rest} {small}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
