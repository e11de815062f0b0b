"""Folds for cross-validation: every video is in validation once, and no source on both sides."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np

from datasets.index_writer import Video
from datasets.split import assign_subsets, count_sources
from errors import UserError
from utils.text import join_few

LEAST, MOST = 2, 100  # folds
BLOCK = 256  # sources


def check_folds(n_folds: int) -> None:
    """Raise UserError for a number of folds that makes no sense."""
    if not LEAST <= n_folds <= MOST:
        raise UserError(f"--folds {n_folds}: must be from {LEAST} to {MOST}")


def fold_paths(path: Path, n_folds: int) -> list[Path]:
    """own.json -> own_fold1.json, own_fold2.json …"""
    return [path.with_name(f"{path.stem}_fold{n}{path.suffix}") for n in range(1, n_folds + 1)]


def refuse_other_folds(path: Path, n_folds: int) -> None:
    """Raise UserError if there are folds of a draw into more folds, which would be left beside
    these."""
    other = [fold for fold in fold_paths(path, MOST)[n_folds:] if fold.exists()]
    if other:
        raise UserError(
            f"--folds {n_folds}: {join_few(map(str, other))} would remain from a draw into more "
            "folds; remove them, or give another name"
        )


def draw_folds(
    videos: Sequence[Video], source_of: Mapping[str, str], *, n_folds: int, seed: int
) -> list[list[Video]]:
    """Return the videos once per fold, with that fold in validation and the others in training.

    Test videos remain in testing. Raises UserError if there are fewer sources than folds.
    """
    sources = count_sources(videos, source_of)
    if len(sources) < n_folds:
        raise UserError(
            f"--folds {n_folds}: there are only {len(sources)} sources of videos; use fewer folds"
        )
    order = sorted(sources)
    Random(seed).shuffle(order)
    fold_of = stratify([sources[name] for name in order], n_folds)
    members: list[set[str]] = [set() for _ in range(n_folds)]
    for name, fold in zip(order, fold_of, strict=True):
        members[fold].add(name)
    return [assign_subsets(videos, source_of, validation) for validation in members]


def stratify(sources: Sequence[Counter[str]], n_folds: int) -> list[int]:
    """Assign each source, given by its number of videos per class, to a fold from 0.

    The rule of scikit-learn's StratifiedGroupKFold: sources with the most uneven counts first, each
    to the fold where it leaves the classes' shares the most even; of equal ones, to that with the
    fewest videos.
    """
    totals: Counter[str] = Counter()
    for counts in sources:
        totals.update(counts)
    column_of = {label: column for column, label in enumerate(sorted(totals))}
    n_videos = np.array([totals[label] for label in column_of], np.float64)
    folds = np.zeros((n_folds, len(column_of)))  # videos per fold and class
    uneven = np.zeros(len(column_of))  # per class: standard deviation of its shares in the folds
    sizes, each = np.zeros(n_folds), np.arange(n_folds)
    chosen = [0] * len(sources)
    for number in np.argsort(-_spread(sources, column_of), kind="stable"):
        columns = [column_of[label] for label in sources[number]]
        added = np.array([*sources[number].values()], np.float64)
        after = np.repeat(folds[:, None, columns], n_folds, axis=1)  # (folds, choices, columns)
        after[each, each] += added
        changed = (after / n_videos[columns]).std(axis=0)  # (choices, columns)
        choices = np.tile(uneven, (n_folds, 1))
        choices[:, columns] = changed
        means = choices.mean(axis=1)
        best = min(range(n_folds), key=lambda fold: (round(means[fold], 9), sizes[fold]))
        chosen[number] = best
        folds[best, columns] += added
        sizes[best] += added.sum()
        uneven[columns] = changed[best]
    return chosen


def _spread(sources: Sequence[Counter[str]], column_of: Mapping[str, int]) -> np.ndarray:
    """Return the standard deviation over all classes of each source's numbers of videos. A table of
    all sources would take gigabytes for Kinetics."""
    found = np.zeros(len(sources))
    for start in range(0, len(sources), BLOCK):
        block = sources[start : start + BLOCK]
        table = np.zeros((len(block), len(column_of)))
        for row, counts in zip(table, block, strict=True):
            row[[column_of[label] for label in counts]] = [*counts.values()]
        found[start : start + BLOCK] = table.std(axis=1)
    return found
