"""What a run has found out: accuracy, what it is worth, where the errors are."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import exp, lgamma, log, log1p
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from datasets.index import read_index
from evaluation.metrics import FEW, WIDE, describe_interval, interval_width, wilson_interval
from evaluation.results import Entries, averaged, labelled, read_results
from utils.reading import shown_name

LEVEL = 0.025  # one-sided
MAX_CONFUSIONS = 3
UNEVEN = 1.5  # ratio of the largest to the smallest class from which on their mean is given
SUBSET = "validation"


class Outcome(NamedTuple):
    """The videos of one training that its model was tested on."""

    truths: tuple[str, ...]
    predictions: tuple[str, ...]

    @property
    def hits(self) -> tuple[str, ...]:
        """The classes of the videos that are recognised."""
        pairs = zip(self.truths, self.predictions, strict=True)
        return tuple(truth for truth, prediction in pairs if truth == prediction)


def read_outcome(index_path: Path, result_path: Path) -> Outcome:
    """Read the index and the result of a training; a missing result counts as wrong."""
    index, results = read_index(index_path), read_results(result_path)
    targets = labelled(index, SUBSET)
    predictions = [_first(results.get(video, [])) for video in targets]
    truths = tuple(index.labels[target] for target in targets.values())
    return Outcome(truths, tuple(predictions))


def _first(entries: Entries) -> str:
    ranking = averaged(entries) if entries else []
    return ranking[0][0] if ranking else ""


def describe(folds: Sequence[Outcome]) -> Iterator[str]:
    """Yield the lines that say how good the model is; several trainings are pooled.

    It is compared with the best constant answer: the class of most of the tested videos.
    """
    truths = Counter(truth for tested in folds for truth in tested.truths)
    hits = Counter(truth for tested in folds for truth in tested.hits)
    n, n_hits = truths.total(), hits.total()
    low, high = wilson_interval(n_hits, n)
    yield (
        f"accuracy: {n_hits / n:.1%} ({n_hits} of {n} videos that the model has not seen in "
        f"training; 95% interval {low:.1%} to {high:.1%})"
    )
    if len(folds) > 1:
        shares = [len(tested.hits) / len(tested.truths) for tested in folds]
        listed = ", ".join(f"{share:.1%}" for share in shares)
        yield f"folds: {listed}; mean {mean(shares):.1%}, standard deviation {stdev(shares):.1%}"
    largest, n_naive = truths.most_common(1)[0]
    yield f"always answering {shown_name(largest)}, the largest class: {n_naive / n:.1%}"
    yield _against_naive(n_hits, n_naive, n, shown_name(largest))
    if n_naive > UNEVEN * min(truths.values()):
        balanced = mean(hits[label] / count for label, count in truths.items())
        yield (
            f"mean of the classes' accuracies: {balanced:.1%} (always answering one class: "
            f"{1 / len(truths):.1%})"
        )
    if n < FEW or interval_width(n_hits, n) > WIDE:
        yield f"what {n} videos can't tell: {describe_interval(n_hits, n)}"
    yield from _errors(folds)


def _against_naive(n_hits: int, n_naive: int, n: int, largest: str) -> str:
    p = chance_of(n_hits, n, n_naive / n)
    if p <= LEVEL:
        return f"that is better than chance: guessing gets there {_rarely(p)}"
    if n_hits > n_naive:
        return f"that may be chance: guessing gets there {_rarely(p)}; more videos would tell"
    return f"that is not shown to be better than always answering {largest}"


def _rarely(p: float) -> str:
    if p < 0.001:
        return "less than once in 1000 tries"
    return f"once in {1 / p:.0f} tries" if p < 0.1 else f"in {p:.0%} of tries"


def chance_of(n_hits: int, n: int, share: float) -> float:
    """Return the probability of at least that many hits in `n` tries with this share of success:
    the tail of the binomial distribution."""
    if share <= 0:
        return float(n_hits <= 0)
    if share >= 1:
        return 1.0
    logs = (
        lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(share) + (n - k) * log1p(-share)
        for k in range(n_hits, n + 1)
    )
    return min(1.0, sum(map(exp, logs)))


def _errors(folds: Sequence[Outcome]) -> Iterator[str]:
    """Yield where the mistakes are: the pairs of classes that are confused most often."""
    confused: Counter[tuple[str, str]] = Counter()
    totals: Counter[str] = Counter()
    for tested in folds:
        totals.update(tested.truths)
        pairs = zip(tested.truths, tested.predictions, strict=True)
        confused.update(pair for pair in pairs if pair[0] != pair[1])
    if not confused:
        return
    pairs_text = "; ".join(
        f"{count} of {totals[truth]} {shown_name(truth)} taken for {shown_name(guess or 'nothing')}"
        for (truth, guess), count in confused.most_common(MAX_CONFUSIONS)
    )
    worst = confused.most_common(1)[0][0][0]
    yield f"most mistakes: {pairs_text}"
    yield f"more videos help most of {shown_name(worst)}, in the places where it will be used"
