"""Accuracy and its kin. Arrays in, numbers out."""

import math
from statistics import NormalDist

import numpy as np


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
