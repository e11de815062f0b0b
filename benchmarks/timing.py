"""Times two ways of doing one thing in turns, so that both meet the same noise."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Comparison(NamedTuple):
    """Work done per second, ours and the plain way's, and the ratio of the two."""

    name: str
    unit: str
    ours: float
    plain: float
    ratio: float  # median over the rounds, so that one disturbed round does not decide
    of_limit: float | None = None  # ours as a share of what the machine allows


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
    """Run both in turns; each call returns how many units it did. A round before warms up, but for
    whole programs, to which that belongs.

    `limit` is the rate that the machine allows.
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


def rate(work: Callable[[], float], *, rounds: int = 3) -> float:
    """Units per second, the median of some rounds after one that warms up."""
    return statistics.median([_rate(work) for _ in range(rounds + 1)][1:])


def _rate(work: Callable[[], float]) -> float:
    started = time.perf_counter()
    units = work()
    return units / (time.perf_counter() - started)
