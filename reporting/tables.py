"""What the tables of a report say, counted from its facts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation.metrics import FEW, Thresholds, thresholds_of, wilson_interval
from evaluation.results import labelled
from reporting.facts import UNKNOWN, Facts, Videos

SHOWN_CLASSES = 20  # of a confusion matrix with numbers in it
OTHERS = "all others"
FALSE_ALARMS = 0.05
RECALL = 0.95


class ClassRow(NamedTuple):
    """One class; a video without a result counts as wrong, as it does in the accuracy."""

    label: str
    n: int
    n_right: int
    interval: tuple[float, float]  # Wilson 95%
    taken_for: str  # the class that most of its mistakes went to, or ""

    @property
    def accuracy(self) -> float:
        return self.n_right / self.n


def class_rows(facts: Facts) -> list[ClassRow]:
    """The classes that have videos, worst first; of equal ones the one with more videos."""
    assert facts.index is not None
    matrix = facts.confusion()
    targets = list(labelled(facts.index, facts.subset).values())
    counts = np.bincount(targets, minlength=len(facts.labels))
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    rows = []
    for number in np.flatnonzero(counts).tolist():
        n, right = int(counts[number]), int(matrix[number, number])
        taken_for = int(wrong[number].argmax())
        rows.append(
            ClassRow(
                facts.labels[number],
                n,
                right,
                wilson_interval(right, n),
                facts.labels[taken_for] if wrong[number, taken_for] else "",
            )
        )
    return sorted(rows, key=lambda row: (row.accuracy, -row.n, row.label))


class Pair(NamedTuple):
    """A class that was taken for another one."""

    truth: str
    answer: str
    n: int
    share: float  # of the class's videos that have a result


def confused_pairs(matrix: np.ndarray, labels: Sequence[str], limit: int) -> list[Pair]:
    """The pairs that most videos were confused in; of equal ones those of smaller classes."""
    totals = matrix.sum(axis=1)
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    truths, answers = np.nonzero(wrong)
    order = np.lexsort((answers, truths, totals[truths], -wrong[truths, answers]))[:limit]
    return [
        Pair(labels[t], labels[a], int(wrong[t, a]), float(wrong[t, a] / totals[t]))
        for t, a in zip(truths[order].tolist(), answers[order].tolist(), strict=True)
    ]


def shown_matrix(matrix: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The whole matrix, or of many classes those with the most mistakes and the others as one."""
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
    """Why nothing can be said of scores and thresholds on so few videos per class; None if it can:
    with FEW videos of each of two classes, or twice as many of more classes."""
    if len(labels) == 2 and min(counts) < FEW:
        told = " and ".join(f"{n} of {name}" for n, name in zip(counts, labels, strict=True))
        return f"it takes some {FEW} videos of each class to tell, and there are {told}"
    if sum(counts) < 2 * FEW:
        return f"it takes some {2 * FEW} videos to tell, and there are {sum(counts)}"
    return None


class Choice(NamedTuple):
    """A threshold for the score of the positive class, and what becomes of the videos with it."""

    what: str
    threshold: float
    recall: float
    precision: float
    false_alarms: float  # the share of the negatives
    accuracy: float


class TwoClasses(NamedTuple):
    """A result of two classes as the search for one of them."""

    positive: str
    negative: str
    counts: Thresholds
    choices: list[Choice]
    n_left_out: int  # videos whose score for the positive class was not kept


def two_classes(facts: Facts, positive: str | None) -> TwoClasses:
    """`positive` is the class that is looked for: unless told, the rarer one, or the first.

    Raises ValueError, with the reason, where there is nothing to choose.
    """
    if len(facts.labels) != 2 or facts.index is None:
        raise ValueError("only for two classes")
    videos = facts.videos
    n_of = np.bincount(videos.targets[videos.is_labelled], minlength=2)
    number = int(n_of[1] < n_of[0]) if positive is None else facts.labels.index(positive)
    scores = videos.score_of(facts.labels[number])
    is_used = videos.is_labelled & np.isfinite(scores)
    if not is_used.any():
        raise ValueError("no video kept the score of both classes: set --output_topk 2 or more")
    counts = thresholds_of(videos.targets[is_used] == number, scores[is_used])
    return TwoClasses(
        facts.labels[number],
        facts.labels[1 - number],
        counts,
        _choices(counts),
        int((videos.is_labelled & ~is_used).sum()),
    )


def _choices(counts: Thresholds) -> list[Choice]:
    """Every choice takes the best of the thresholds that do what it asks; of equal ones the
    highest, which calls the fewest."""
    quiet = counts.false_positive_rate <= FALSE_ALARMS
    thorough = int(np.argmax(counts.recall >= RECALL))
    half = np.flatnonzero(counts.thresholds >= 0.5)
    found = [
        ("at 0.5", int(half[-1]) if len(half) else None),
        ("most videos right", int(counts.accuracy.argmax())),
        ("best F1", int(counts.f1.argmax())),
        (
            f"at most {FALSE_ALARMS:.0%} false alarms",
            int(np.where(quiet, counts.recall, -1).argmax()) if quiet.any() else None,
        ),
        (f"finds at least {RECALL:.0%}", thorough),
    ]
    return [_choice(what, counts, place) for what, place in found if place is not None]


def _choice(what: str, counts: Thresholds, place: int) -> Choice:
    columns = (counts.recall, counts.precision, counts.false_positive_rate, counts.accuracy)
    threshold = 0.5 if what == "at 0.5" else float(counts.thresholds[place])
    return Choice(what, threshold, *(float(column[place]) for column in columns))


def worst_mistakes(videos: Videos, limit: int) -> list[int]:
    """The wrong answers with the highest scores, as places in the columns."""
    wrong = np.flatnonzero(videos.is_labelled & ~videos.hits & (videos.predictions != UNKNOWN))
    return wrong[np.argsort(-videos.scores[wrong], kind="stable")][:limit].tolist()


def most_unsure(videos: Videos, limit: int, *, but: Sequence[int] = ()) -> list[int]:
    """The videos whose two best scores are closest to each other, without those of `but`."""
    order = np.argsort(videos.margins, kind="stable")
    left = set(but)
    return [number for number in order.tolist() if number not in left][:limit]
