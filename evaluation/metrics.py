"""Accuracy and its kin. Arrays in, numbers out."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

FEW = 50  # videos, or videos of a class, below which no verdict stands on them


def topk_hits(scores: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """(N, K) scores and (N,) class numbers -> (N,) bool: is the target among the k highest?

    Of equal scores the lower class number ranks first, and NaN ranks last. A target below 0 (no
    label) or with a NaN score is no hit.
    """
    targets = np.asarray(targets)
    rows = np.arange(len(scores))
    own = scores[rows, np.maximum(targets, 0)][:, None]
    before = np.arange(scores.shape[1])[None, :] < targets[:, None]
    n_better = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return (n_better < k) & (targets >= 0) & ~np.isnan(own[:, 0])


def mean_class_accuracy(hits: np.ndarray, targets: np.ndarray) -> float:
    """(N,) bool and (N,) class numbers -> the mean of the classes' own accuracies.

    Classes without a sample do not count.
    """
    hits, targets = np.asarray(hits), np.asarray(targets)
    _, classes = np.unique(targets, return_inverse=True)
    return float((np.bincount(classes, weights=hits) / np.bincount(classes)).mean())


def confusion_matrix(targets: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """(N,) and (N,) -> (n_classes, n_classes) counts; row = target, column = prediction."""
    matrix = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(matrix, (np.asarray(targets), np.asarray(predictions)), 1)
    return matrix


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927, doi:10.2307/2276774).

    Raises ValueError without samples.
    """
    if n < 1:
        raise ValueError("an interval needs at least one sample")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def could_be(successes: int, n: int) -> str:
    """A share and the ends of its 95% interval, in words: 7 of 8 -> "87.5% can be anything …"."""
    low, high = wilson_interval(successes, n)
    return f"{successes / n:.1%} can be anything from {low:.0%} to {high:.0%}"


def mcnemar_p(only_a: int, only_b: int) -> float:
    """The exact two-sided p of McNemar's test (1947, doi:10.1007/BF02295996): of two classifiers on
    the same samples, how often chance alone would part the samples that just one of them has right
    as unevenly as into `only_a` and `only_b`, or more so. 1 where there are none."""
    n = only_a + only_b
    coefficient = total = 1  # in whole numbers: no rounding, however many samples
    for i in range(min(only_a, only_b)):
        coefficient = coefficient * (n - i) // (i + 1)
        total += coefficient
    return min(1.0, 2 * total / 2**n)


class Thresholds(NamedTuple):
    """What becomes of two classes where a score of at least a threshold means the positive one.

    Columns (M,), from the highest distinct score to the lowest.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray  # positives at or above the threshold
    false_positives: np.ndarray  # negatives there
    n_positives: int
    n_negatives: int

    @property
    def recall(self) -> np.ndarray:
        """The share of positives that is found; also called true positive rate."""
        return self.true_positives / self.n_positives

    @property
    def false_positive_rate(self) -> np.ndarray:
        return self.false_positives / self.n_negatives

    @property
    def precision(self) -> np.ndarray:
        """The share of what is called positive that is so."""
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def accuracy(self) -> np.ndarray:
        n = self.n_positives + self.n_negatives
        return (self.true_positives + self.n_negatives - self.false_positives) / n

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall."""
        wrong = self.false_positives + self.n_positives - self.true_positives
        return 2 * self.true_positives / (2 * self.true_positives + wrong)


def thresholds_of(is_positive: np.ndarray, scores: np.ndarray) -> Thresholds:
    """(N,) bool and (N,) scores of the positive class. Raises ValueError unless both classes occur
    and all scores are finite."""
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
    """False and true positive rates, (M + 1,) each, from (0, 0), above every score, to (1, 1)."""
    return np.append(0.0, counts.false_positive_rate), np.append(0.0, counts.recall)


def precision_recall_curve(counts: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall, (M + 1,) each, with rising recall from the point (1, 0) on, at which
    nothing is called positive."""
    return np.append(1.0, counts.precision), np.append(0.0, counts.recall)


def auc(x: np.ndarray, y: np.ndarray) -> float:
    """The area under a curve of straight lines, (N,) rising x and (N,) y."""
    x, y = np.asarray(x), np.asarray(y)
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)


def average_precision(counts: Thresholds) -> float:
    """The mean of the precisions at each threshold, weighted by the recall that it adds: the area
    below the precision-recall curve without the optimism of straight lines between its points."""
    precision, recall = precision_recall_curve(counts)
    return float((np.diff(recall) * precision[1:]).sum())


class Calibration(NamedTuple):
    """Scores of predictions in bins of equal width, (n_bins,) each; NaN where a bin is empty."""

    counts: np.ndarray
    scores: np.ndarray  # their mean
    accuracies: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap between score and accuracy."""
        gaps = np.abs(self.scores - self.accuracies)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibration(scores: np.ndarray, hits: np.ndarray, n_bins: int = 10) -> Calibration:
    """(N,) scores in [0, 1] of the predictions and (N,) bool whether they are right (Guo et al.,
    arXiv:1706.04599). A bin holds its upper edge, the first 0 too."""
    scores, hits = np.asarray(scores, np.float64), np.asarray(hits)
    inner_edges = np.linspace(0, 1, n_bins + 1)[1:-1]
    bins = np.searchsorted(inner_edges, scores)
    counts = np.bincount(bins, minlength=n_bins)
    sums = [np.bincount(bins, weights=column, minlength=n_bins) for column in (scores, hits)]
    with np.errstate(invalid="ignore"):
        return Calibration(counts, sums[0] / counts, sums[1] / counts)
