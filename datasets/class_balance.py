"""Videos per class, and class weights for an imbalanced dataset."""

from collections.abc import Iterable, Sequence

import numpy as np

from datasets.records import VideoRecord
from utils.reading import shown_name

MAX_LISTED = 20  # classes up to which the log lists all counts
N_EXTREMES = 3  # with more classes: how many of the smallest and largest it lists


def class_counts(records: Iterable[VideoRecord], n_classes: int) -> np.ndarray:
    """Count the labelled videos of each class: int64 (n_classes,)."""
    labels = [record.label for record in records if record.label >= 0]
    return np.bincount(labels, minlength=n_classes)[:n_classes]


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """Weight classes by inverse frequency: (K,) counts -> float64 (K,) weights.

    n / (classes x count), as in scikit-learn's class_weight="balanced": the mean over all videos
    is 1, so the loss keeps its scale. Classes without videos get 1, which is never used.
    """
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def describe_counts(counts: np.ndarray, labels: Sequence[str]) -> str:
    """Describe the counts in one line: all, or only the extremes if there are many classes."""
    numbers = counts[: len(labels)]
    if len(labels) <= MAX_LISTED:
        pairs = zip(labels, numbers, strict=True)
        return ", ".join(f"{shown_name(label)} {n}" for label, n in pairs)
    order = np.argsort(numbers, kind="stable")
    few, many = order[:N_EXTREMES], order[: -N_EXTREMES - 1 : -1]
    lists = [
        ", ".join(f"{shown_name(labels[i])} {numbers[i]}" for i in part) for part in (few, many)
    ]
    middle = f"{np.median(numbers):g}"
    return f"{len(labels)} classes, median {middle} videos; fewest {lists[0]}; most {lists[1]}"
