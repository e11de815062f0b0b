"""The sections of the check, in order of worth, run within a budget of time."""

import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.gpu_check import correctness, device_tests, feeding, golden, quick, speed, trace
from benchmarks.gpu_check.record import CUT, FAILED, NOT_RUN, Record
from benchmarks.gpu_check.setting import Setting, free_memory
from benchmarks.gpu_check.tables import Row, shown
from errors import UserError

RESERVE = 5.0  # seconds, to end and to write


class Section(NamedTuple):
    """A section begins only if `needs` seconds are left, and is cut off after `most`, so that a
    slow one leaves time for those after it."""

    help: str
    rows: Callable[[Setting, Record], Iterator[Row]]
    needs: float
    most: float


SECTIONS: dict[str, Section] = {
    "quick": Section("imports, one step, one resumed run", quick.rows, 10, 90),
    "correctness": Section("logits and a step against the CPU", correctness.rows, 20, 90),
    "golden": Section("command lines against the original's results", golden.rows, 15, 60),
    "speed": Section("clips/s, share of the matrix rate, memory", speed.rows, 40, 200),
    "feeding": Section("loading per core, an epoch of main.py", feeding.rows, 40, 90),
    "trace": Section("a profile of ten steps", trace.rows, 20, 60),
    "tests": Section("pytest -m gpu", device_tests.rows, 60, 150),
    "compiled": Section("steps with --compile", speed.compiled_rows, 60, 240),
}


class TimeUp(BaseException):
    """The budget is spent. Not an Exception, or a library could take it for a failure of its own
    and go on."""


def run_sections(names: Sequence[str], setting: Setting, record: Record, *, minutes: float) -> None:
    """Run sections until the budget is spent; what fails, and what is left, is noted."""
    end = time.monotonic() + 60 * minutes - RESERVE
    for name in names:
        section, left = SECTIONS[name], end - time.monotonic()
        if left < section.needs:
            record.skip(name, f"{max(left, 0):.0f} s were left, and it needs {section.needs:.0f}")
            continue
        _run(name, section, setting, record, min(left, section.most))
    for name in record.of_status(NOT_RUN):
        note = record.sections[name]["note"]
        print(f"\n{name}: not run" + (f": {note}" if note else ""), flush=True)


def _run(name: str, section: Section, setting: Setting, record: Record, seconds: float) -> None:
    print(f"\n{name}: {section.help}", flush=True)
    record.begin(name)
    try:
        with _limited_to(seconds):
            for row in section.rows(setting, record):
                record.add(name, row)
                print("  " + ", ".join(_cells(row)), flush=True)
    except TimeUp:
        record.end(name, status=CUT, note="the time was up")
    except Exception as error:  # any: the sections after it are worth running
        record.end(name, status=FAILED, note=f"{type(error).__name__}: {error}")
        text = str(error) if isinstance(error, UserError) else traceback.format_exc()
        print(text, flush=True)
    else:
        record.end(name)
    free_memory()
    entry = record.sections[name]
    print(f"{name}: {entry['status']}, {entry['seconds']:.0f} s", flush=True)


def _cells(row: Row) -> Iterator[str]:
    for column, value in row.items():
        yield str(value) if isinstance(value, str) else f"{column} {shown(value)}"


@contextmanager
def _limited_to(seconds: float) -> Iterator[None]:
    """Raise TimeUp in this thread after some seconds, between two steps of Python."""

    def ring(number: int, frame: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
