"""How many videos each class has, and the weights that even them out."""

from collections.abc import Iterable, Sequence

import numpy as np

from datasets.compact import VideoRecord
from utils.reading import shown_name

LISTED = 20  # classes that are counted one by one in the log
NAMED = 3  # of more: the rarest and the commonest that are named


def class_counts(records: Iterable[VideoRecord], n_classes: int) -> np.ndarray:
    """int64 (n_classes,); videos without a label do not count."""
    labels = [record.label for record in records if record.label >= 0]
    return np.bincount(labels, minlength=n_classes)[:n_classes]


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """(K,) videos of each class -> float64 (K,) weights, in inverse proportion.

    Their mean over all videos is 1, so that the loss keeps its size: n / (classes x count), as
    scikit-learn's class_weight="balanced". A class without videos weighs 1: none will ask.
    """
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def describe_counts(counts: np.ndarray, labels: Sequence[str]) -> str:
    """One line: each class and its number, or of many classes the extremes."""
    numbers = counts[: len(labels)]
    if len(labels) <= LISTED:
        pairs = zip(labels, numbers, strict=True)
        return ", ".join(f"{shown_name(label)} {n}" for label, n in pairs)
    order = np.argsort(numbers, kind="stable")
    few, many = order[:NAMED], order[: -NAMED - 1 : -1]
    lists = [
        ", ".join(f"{shown_name(labels[i])} {numbers[i]}" for i in part) for part in (few, many)
    ]
    middle = f"{np.median(numbers):g}"
    return (
        f"{len(labels)} classes, {middle} videos in the middle; fewest {lists[0]}; most {lists[1]}"
    )
