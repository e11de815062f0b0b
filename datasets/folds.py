"""Folds for cross-validation: every video is in validation once, and no source on both sides."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np

from datasets.index_writer import Video
from datasets.split import assign_subsets, count_sources
from errors import UserError

LEAST, MOST = 2, 100  # folds


def check_folds(n_folds: int) -> None:
    """Raise UserError for a number of folds that makes no sense."""
    if not LEAST <= n_folds <= MOST:
        raise UserError(f"--folds {n_folds}: must be from {LEAST} to {MOST}")


def fold_paths(path: Path, n_folds: int) -> list[Path]:
    """own.json -> own_fold1.json, own_fold2.json …"""
    return [path.with_name(f"{path.stem}_fold{n}{path.suffix}") for n in range(1, n_folds + 1)]


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
    labels = sorted({label for counts in sources for label in counts})
    table = np.array([[counts[label] for label in labels] for counts in sources], np.float64)
    totals = table.sum(axis=0)  # (classes,)
    folds = np.zeros((n_folds, len(labels)))
    chosen = [0] * len(sources)
    for number in np.argsort(-table.std(axis=1), kind="stable"):
        after = np.broadcast_to(folds, (n_folds, *folds.shape)).copy()  # one table per choice
        after[np.arange(n_folds), np.arange(n_folds)] += table[number]
        unevenness = (after / totals).std(axis=1).mean(axis=1)  # (folds,)
        sizes = after.sum(axis=2).diagonal()
        best = min(range(n_folds), key=lambda fold: (round(unevenness[fold], 9), sizes[fold]))
        chosen[number] = best
        folds[best] += table[number]
    return chosen
