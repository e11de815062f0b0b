"""Accuracy, confusion, intervals, tests and curves: arrays in, numbers out."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

FEW = 50  # below so many videos, or videos of a class, figures are too uncertain to judge
N_SIMULATED = 100
WIDE = 0.1  # an interval of this width is worth a warning


def topk_hits(scores: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return whether each target is among the k highest: (N, K) scores, (N,) classes -> (N,) bool.

    The lower class number wins ties, and NaN ranks last. A negative target (unlabelled) or one
    with a NaN score is a miss.
    """
    targets = np.asarray(targets)
    rows = np.arange(len(scores))
    own = scores[rows, np.maximum(targets, 0)][:, None]
    before = np.arange(scores.shape[1])[None, :] < targets[:, None]
    n_better = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return (n_better < k) & (targets >= 0) & ~np.isnan(own[:, 0])


def mean_class_accuracy(hits: np.ndarray, targets: np.ndarray) -> float:
    """Average the accuracy per class, from (N,) bool and (N,) class numbers.

    Classes without a sample are excluded.
    """
    hits, targets = np.asarray(hits), np.asarray(targets)
    _, classes = np.unique(targets, return_inverse=True)
    return float((np.bincount(classes, weights=hits) / np.bincount(classes)).mean())


def confusion_matrix(targets: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Count (target, prediction) pairs: (N,) and (N,) -> (n_classes, n_classes)."""
    matrix = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(matrix, (np.asarray(targets), np.asarray(predictions)), 1)
    return matrix


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a proportion (Wilson 1927, doi:10.2307/2276774).

    Raises ValueError if n is 0.
    """
    if n < 1:
        raise ValueError("an interval needs at least one sample")
    z = NormalDist().inv_cdf(0.975)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def interval_width(successes: int, n: int) -> float:
    """Return the width of the 95% Wilson interval."""
    low, high = wilson_interval(successes, n)
    return high - low


def more_to_halve(successes: int, n: int) -> int:
    """Return how many more samples, at the same share of successes, would halve the width of the
    interval, to two digits."""
    width = interval_width(successes, n)
    low, high = n, 8 * n  # the width falls as n ** -0.5, or as 1 / n where all or none succeed
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = interval_width(round(successes / n * middle), middle) <= width / 2
        low, high = (low, middle) if is_enough else (middle, high)
    return int(float(f"{high - n:.2g}"))


def describe_interval(successes: int, n: int) -> str:
    """Describe how uncertain an accuracy is, for a reader who knows no statistics."""
    low, high = wilson_interval(successes, n)
    return (
        f"an accuracy of {successes / n:.0%} can be anything from {low:.0%} to {high:.0%} (95% "
        f"interval); {more_to_halve(successes, n)} more videos would halve that range"
    )


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947, doi:10.1007/BF02295996).

    Of two classifiers on the same samples, `only_a` samples are correct for the first only and
    `only_b` for the second only. 1.0 if both are 0.
    """
    n = only_a + only_b
    coefficient = total = 1  # integers, so that nothing is rounded however large n is
    for i in range(min(only_a, only_b)):
        coefficient = coefficient * (n - i) // (i + 1)
        total += coefficient
    return min(1.0, 2 * total / 2**n)


class Thresholds(NamedTuple):
    """Counts of a binary classifier at each of its M distinct scores as the threshold.

    A score of at least the threshold means positive. Columns (M,), in descending order.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    n_positives: int
    n_negatives: int

    @property
    def recall(self) -> np.ndarray:
        """Also called true positive rate."""
        return self.true_positives / self.n_positives

    @property
    def false_positive_rate(self) -> np.ndarray:
        return self.false_positives / self.n_negatives

    @property
    def precision(self) -> np.ndarray:
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def accuracy(self) -> np.ndarray:
        n = self.n_positives + self.n_negatives
        return (self.true_positives + self.n_negatives - self.false_positives) / n

    @property
    def f1(self) -> np.ndarray:
        wrong = self.false_positives + self.n_positives - self.true_positives
        return 2 * self.true_positives / (2 * self.true_positives + wrong)


def thresholds_of(is_positive: np.ndarray, scores: np.ndarray) -> Thresholds:
    """Count true and false positives at each distinct score, from (N,) bool and (N,) scores of the
    positive class.

    Raises ValueError unless both classes occur and all scores are finite.
    """
    is_positive, scores = np.asarray(is_positive, bool), np.asarray(scores, np.float64)
    if is_positive.all() or not is_positive.any():
        raise ValueError("both classes must occur")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # of equal scores
    positives = np.cumsum(is_positive[order])[ends]
    n_positives = int(is_positive.sum())
    return Thresholds(
        falling[ends],
        positives,
        ends + 1 - positives,
        n_positives,
        len(scores) - n_positives,
    )


def roc_curve(counts: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates, (M + 1,) each, from (0, 0) to (1, 1)."""
    return np.append(0.0, counts.false_positive_rate), np.append(0.0, counts.recall)


def precision_recall_curve(counts: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall, (M + 1,) each, by rising recall; the first point is (1, 0)."""
    return np.append(1.0, counts.precision), np.append(0.0, counts.recall)


def auc(x: np.ndarray, y: np.ndarray) -> float:
    """Return the area under a piecewise linear curve, (N,) rising x and (N,) y."""
    x, y = np.asarray(x), np.asarray(y)
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)


def average_precision(counts: Thresholds) -> float:
    """Return the mean precision weighted by the increase in recall at each threshold.

    This is the area under the precision-recall curve as a step function; linear interpolation
    would be too optimistic.
    """
    precision, recall = precision_recall_curve(counts)
    return float((np.diff(recall) * precision[1:]).sum())


class Calibration(NamedTuple):
    """Predictions in bins of equal score width, (n_bins,) each; NaN for empty bins."""

    counts: np.ndarray
    scores: np.ndarray  # mean score
    accuracies: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap between score and accuracy."""
        gaps = np.abs(self.scores - self.accuracies)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibration(scores: np.ndarray, hits: np.ndarray, n_bins: int = 10) -> Calibration:
    """Bin (N,) scores in [0, 1] of the predictions and (N,) bool whether they are correct.

    See Guo et al., arXiv:1706.04599. Bins include their upper edge, and the first one also 0.
    """
    scores, hits = np.asarray(scores, np.float64), np.asarray(hits)
    inner_edges = np.linspace(0, 1, n_bins + 1)[1:-1]
    bins = np.searchsorted(inner_edges, scores)
    counts = np.bincount(bins, minlength=n_bins)
    sums = [np.bincount(bins, weights=column, minlength=n_bins) for column in (scores, hits)]
    with np.errstate(invalid="ignore"):
        return Calibration(counts, sums[0] / counts, sums[1] / counts)


def error_by_chance(scores: np.ndarray, n_bins: int = 10) -> float:
    """Return the mean calibration error of predictions with these scores (N,) that are correct
    exactly as often as their scores say: more than 0, since they are few."""
    rng = np.random.default_rng(0)
    draws = (rng.random(len(scores)) < scores for _ in range(N_SIMULATED))
    return float(np.mean([calibration(scores, hits, n_bins).error for hits in draws]))
