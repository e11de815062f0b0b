"""The training loss, and class weights for an imbalanced dataset."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from utils.reading import shown_name

IGNORE_INDEX = -100  # cross entropy's default: the target of padding clips
MAX_LISTED = 20  # classes up to which the log lists all counts
N_EXTREMES = 3  # with more classes: how many of the smallest and largest it lists


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross entropy of logits (B, K), summed over the clips.

    `targets` are class numbers (B,), or from batch mixing soft targets (B, K), where a row of
    zeros is a clip to ignore. `weight` (K,) weights the classes. Label smoothing spreads a share
    of each target evenly over all classes (Szegedy et al., arXiv:1512.00567).
    """
    if targets.is_floating_point():
        # cross_entropy would smooth rows of zeros, too.
        spread = targets.sum(dim=1, keepdim=True) / targets.shape[1]
        targets = targets.lerp(spread, label_smoothing)
        return F.cross_entropy(logits, targets, weight=weight, reduction="sum")
    return F.cross_entropy(
        logits,
        targets,
        weight=weight,
        reduction="sum",
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
    )


def class_counts(labels: Iterable[int], n_classes: int) -> np.ndarray:
    """Count the videos of each class: int64 (n_classes,); negative labels do not count."""
    known = [label for label in labels if label >= 0]
    return np.bincount(known, minlength=n_classes)[:n_classes]


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
