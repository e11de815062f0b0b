"""Compute the tables of a report."""

import math
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import NamedTuple

import numpy as np

from evaluation.metrics import FEW, Thresholds, thresholds_of, wilson_interval
from evaluation.results import labelled
from reporting.facts import UNKNOWN, Facts, Videos

SHOWN_CLASSES = 20  # largest confusion matrix that is shown with numbers
OTHERS = "all others"
FALSE_POSITIVES = 0.05
RECALL = 0.95
MOST_DIGITS = 20  # behind the point; doubles differ before


class ClassRow(NamedTuple):
    """One class; videos without a result count as wrong, as in the overall accuracy."""

    label: str
    n: int
    n_right: int
    interval: tuple[float, float]  # Wilson 95%
    most_confused: str  # the class that most of its mistakes were predicted as, or ""

    @property
    def accuracy(self) -> float:
        return self.n_right / self.n


def class_rows(facts: Facts) -> list[ClassRow]:
    """List the classes that have videos, worst first; larger classes first in ties."""
    assert facts.index is not None
    matrix = facts.confusion()
    targets = list(labelled(facts.index, facts.subset).values())
    counts = np.bincount(targets, minlength=len(facts.labels))
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    rows = []
    for number in np.flatnonzero(counts).tolist():
        n, right = int(counts[number]), int(matrix[number, number])
        confused = int(wrong[number].argmax())
        rows.append(
            ClassRow(
                facts.labels[number],
                n,
                right,
                wilson_interval(right, n),
                facts.labels[confused] if wrong[number, confused] else "",
            )
        )
    return sorted(rows, key=lambda row: (row.accuracy, -row.n, row.label))


class ConfusedPair(NamedTuple):
    """A true class and the class it was predicted as."""

    truth: str
    prediction: str
    n: int
    share: float  # of the true class's videos that have a result


def confused_pairs(matrix: np.ndarray, labels: Sequence[str], limit: int) -> list[ConfusedPair]:
    """List the pairs with the most mistakes; smaller classes first in ties."""
    totals = matrix.sum(axis=1)
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    truths, predictions = np.nonzero(wrong)
    order = np.lexsort((predictions, truths, totals[truths], -wrong[truths, predictions]))[:limit]
    return [
        ConfusedPair(labels[t], labels[p], int(wrong[t, p]), float(wrong[t, p] / totals[t]))
        for t, p in zip(truths[order].tolist(), predictions[order].tolist(), strict=True)
    ]


def shown_matrix(matrix: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the matrix and its labels; with many classes, merge those with the fewest mistakes."""
    if len(matrix) <= SHOWN_CLASSES:
        return matrix, list(labels)
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    shown = np.sort(order[: SHOWN_CLASSES - 1])
    group = np.full(len(matrix), len(shown))
    group[shown] = np.arange(len(shown))
    small = np.zeros((len(shown) + 1, len(shown) + 1), np.int64)
    np.add.at(small, (group[:, None], group[None, :]), matrix)
    return small, [*(labels[number] for number in shown), OTHERS]


def too_few(counts: Sequence[int], labels: Sequence[str]) -> str | None:
    """Say why there are too few videos to judge scores and thresholds, or return None.

    Two classes need FEW videos each, more classes twice as many in all.
    """
    if len(labels) == 2 and min(counts) < FEW:
        found = " and ".join(f"{n} of {name}" for n, name in zip(counts, labels, strict=True))
        return f"needs at least {FEW} videos of each class; there are {found}"
    if sum(counts) < 2 * FEW:
        return f"needs at least {2 * FEW} videos; there are {sum(counts)}"
    return None


class Choice(NamedTuple):
    """A threshold for the score of the positive class, and the resulting rates."""

    criterion: str
    threshold: float
    shown: str  # the threshold with as many digits as give these rates
    recall: float
    precision: float
    false_positive_rate: float
    accuracy: float


class BinaryResult(NamedTuple):
    """A two-class result as the detection of one class."""

    positive: str
    negative: str
    counts: Thresholds
    choices: list[Choice]
    n_without_score: int  # videos whose score for the positive class was not saved


def binary_result(facts: Facts, positive: str | None) -> BinaryResult:
    """Find thresholds for the class `positive`, by default the rarer one, or the first.

    Raises ValueError, with the reason, if there is no threshold to choose.
    """
    if len(facts.labels) != 2 or facts.index is None:
        raise ValueError("only for two classes")
    videos = facts.videos
    n_of = np.bincount(videos.targets[videos.is_labelled], minlength=2)
    number = int(n_of[1] < n_of[0]) if positive is None else facts.labels.index(positive)
    scores = videos.score_of(facts.labels[number])
    is_used = videos.is_labelled & np.isfinite(scores)
    if not is_used.any():
        raise ValueError(
            "the scores of both classes were not saved: run inference with --output_topk 2 or more"
        )
    counts = thresholds_of(videos.targets[is_used] == number, scores[is_used])
    return BinaryResult(
        facts.labels[number],
        facts.labels[1 - number],
        counts,
        _choices(counts),
        int((videos.is_labelled & ~is_used).sum()),
    )


def _choices(counts: Thresholds) -> list[Choice]:
    """Choose the best threshold for each criterion; the highest one in ties, which has the fewest
    positives."""
    allowed = counts.false_positive_rate <= FALSE_POSITIVES
    high_recall = int(np.argmax(counts.recall >= RECALL))
    half = np.flatnonzero(counts.thresholds >= 0.5)
    found = [
        ("0.5", int(half[-1]) if len(half) else None),
        ("highest accuracy", int(counts.accuracy.argmax())),
        ("highest F1", int(counts.f1.argmax())),
        (
            f"false positive rate at most {FALSE_POSITIVES:.0%}",
            int(np.where(allowed, counts.recall, -1).argmax()) if allowed.any() else None,
        ),
        (f"recall at least {RECALL:.0%}", high_recall),
    ]
    return [_choice(criterion, counts, place) for criterion, place in found if place is not None]


def _choice(criterion: str, counts: Thresholds, place: int) -> Choice:
    columns = (counts.recall, counts.precision, counts.false_positive_rate, counts.accuracy)
    rates = (float(column[place]) for column in columns)
    if criterion == "0.5":
        return Choice(criterion, 0.5, criterion, *rates)
    threshold, *lower = counts.thresholds[place : place + 2].tolist()
    return Choice(criterion, threshold, _written(threshold, *lower), *rates)


def _written(threshold: float, lower: float = -math.inf) -> str:
    """Round a threshold down, to at least 3 decimals and to more than the next `lower` score."""
    exact = Decimal(repr(threshold))
    for digits in range(3, MOST_DIGITS):
        rounded = exact.quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR)
        if rounded > lower:
            return f"{rounded:f}"
    return f"{exact:f}"


def worst_mistakes(videos: Videos, limit: int) -> list[int]:
    """Return the positions of the wrong predictions with the highest scores."""
    wrong = np.flatnonzero(videos.is_labelled & ~videos.hits & (videos.predictions != UNKNOWN))
    return wrong[np.argsort(-videos.scores[wrong], kind="stable")][:limit].tolist()


def most_uncertain(videos: Videos, limit: int, *, exclude: Sequence[int] = ()) -> list[int]:
    """Return the positions of the videos whose two best scores are closest, except `exclude`."""
    order = np.argsort(videos.margins, kind="stable")
    excluded = set(exclude)
    return [number for number in order.tolist() if number not in excluded][:limit]
