"""What a run has found out: accuracy, what it is worth, where the errors are."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import exp, lgamma, log, log1p
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from datasets.index import UNLABELLED, Index, read_index
from evaluation.metrics import FEW, WIDE, describe_interval, interval_width, wilson_interval
from evaluation.results import Entries, averaged, labelled, read_results
from utils.reading import shown_name

LEVEL = 0.025  # one-sided
MAX_CONFUSIONS = 3
SUBSET = "validation"


class Outcome(NamedTuple):
    """The videos of one training that its model was tested on."""

    truths: tuple[str, ...]
    predictions: tuple[str, ...]
    largest: str  # class of the training videos

    @property
    def n_hits(self) -> int:
        return sum(t == p for t, p in zip(self.truths, self.predictions, strict=True))

    @property
    def n_of_largest(self) -> int:
        """How many hits always answering the largest class has."""
        return self.truths.count(self.largest)


def read_outcome(index_path: Path, result_path: Path) -> Outcome:
    """Read the index and the result of a training; a missing result counts as wrong."""
    index, results = read_index(index_path), read_results(result_path)
    targets = labelled(index, SUBSET)
    predictions = [_first(results.get(video, [])) for video in targets]
    return Outcome(
        tuple(index.labels[target] for target in targets.values()),
        tuple(predictions),
        _largest_class(index),
    )


def _first(entries: Entries) -> str:
    ranking = averaged(entries) if entries else []
    return ranking[0][0] if ranking else ""


def _largest_class(index: Index) -> str:
    counts = Counter(entry.label for entry in index.entries.of_subset("training"))
    del counts[UNLABELLED]
    return index.labels[counts.most_common(1)[0][0]]


def describe(folds: Sequence[Outcome]) -> Iterator[str]:
    """Yield the lines that say how good the model is; several trainings are pooled."""
    n = sum(len(tested.truths) for tested in folds)
    n_hits = sum(tested.n_hits for tested in folds)
    low, high = wilson_interval(n_hits, n)
    yield (
        f"accuracy: {n_hits / n:.1%} ({n_hits} of {n} videos that the model has not seen in "
        f"training; 95% interval {low:.1%} to {high:.1%})"
    )
    if len(folds) > 1:
        shares = [tested.n_hits / len(tested.truths) for tested in folds]
        listed = ", ".join(f"{share:.1%}" for share in shares)
        yield f"folds: {listed}; mean {mean(shares):.1%}, standard deviation {stdev(shares):.1%}"
    n_naive = sum(tested.n_of_largest for tested in folds)
    names = sorted({shown_name(tested.largest) for tested in folds})
    yield f"always answering {' or '.join(names)}, the largest class: {n_naive / n:.1%}"
    yield _against_naive(n_hits, n_naive, n)
    if n < FEW or interval_width(n_hits, n) > WIDE:
        yield f"what {n} videos can't tell: {describe_interval(n_hits, n)}"
    yield from _errors(folds)


def _against_naive(n_hits: int, n_naive: int, n: int) -> str:
    p = chance_of(n_hits, n, n_naive / n)
    if p <= LEVEL:
        return f"that is better than chance: guessing gets there {_rarely(p)}"
    if n_hits > n_naive:
        return f"that may be chance: guessing gets there {_rarely(p)}; more videos would tell"
    return "that is no better than chance: the model has learned nothing that helps on new videos"


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
