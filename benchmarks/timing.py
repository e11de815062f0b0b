"""Time two implementations alternately, so that both see the same noise."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Comparison(NamedTuple):
    """Throughput of ours and of the plain implementation, and their ratio."""

    name: str
    unit: str
    ours: float
    plain: float
    ratio: float  # median over the rounds
    of_limit: float | None = None  # ours as a fraction of the machine's limit


def compare(
    name: str,
    unit: str,
    ours: Callable[[], float],
    plain: Callable[[], float],
    *,
    rounds: int = 3,
    limit: float | None = None,
    warms_up: bool = True,
) -> Comparison:
    """Run both alternately; each call returns how many units of work it did.

    An extra round warms up first, except for whole programs, whose users pay for that too. `limit`
    is the highest rate the machine allows.
    """
    if warms_up:
        ours(), plain()
    rates = [(_rate(ours), _rate(plain)) for _ in range(rounds)]
    ours_rate = statistics.median(a for a, _ in rates)
    return Comparison(
        name,
        unit,
        ours_rate,
        statistics.median(b for _, b in rates),
        statistics.median(a / b for a, b in rates),
        None if limit is None else ours_rate / limit,
    )


def rate(work: Callable[[], float]) -> float:
    """Return units per second, the median of 3 rounds after one that warms up."""
    return statistics.median([_rate(work) for _ in range(4)][1:])


def _rate(work: Callable[[], float]) -> float:
    started = time.perf_counter()
    units = work()
    return units / (time.perf_counter() - started)
