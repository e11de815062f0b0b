"""Compare runs on the same videos: accuracy of each, and McNemar's exact test between them.

A video counts if it has a label and a result in every run. It is correct if its top-1 label is;
window scores (--inference_no_average) are averaged first.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from datasets.activitynet import read_any_index
from datasets.index import SUBSETS, Index
from errors import UserError
from evaluation.metrics import mcnemar_p, wilson_interval
from evaluation.results import Entries, averaged, labelled, read_results, top1_hits
from utils.reading import shown_name
from utils.text import first_few, join_few

LEVEL = 0.05  # family-wise significance level; divided by the number of tests (Bonferroni)
MAX_RUNS = len(string.ascii_uppercase)


@dataclass(frozen=True)
class Split:
    """Top-1 hits of several runs on one index, restricted to the videos that all of them scored."""

    index: Path
    files: tuple[Path, ...]  # (runs,)
    n_videos: int  # labelled videos of the subset
    lacking: tuple[tuple[str, ...], ...]  # (runs,): labelled videos without a result
    videos: tuple[str, ...]  # (N,) common to all runs
    labels: tuple[str, ...]  # (N,)
    hits: np.ndarray  # bool (runs, N)

    @property
    def accuracies(self) -> list[float]:
        return [float(row.mean()) for row in self.hits]


class Pair(NamedTuple):
    """Two runs by number, and how many videos only one of them got right."""

    a: int
    b: int
    only_a: int
    only_b: int

    @property
    def p(self) -> float:
        return mcnemar_p(self.only_a, self.only_b)


class ClassDifference(NamedTuple):
    """One class and the accuracy that two runs have on its videos."""

    label: str
    n_videos: int
    accuracy_a: float
    accuracy_b: float


def read_splits(groups: Sequence[Sequence[Path]], subset: str) -> list[Split]:
    """Read [index, result of run A, result of run B, …] for each split. Raises UserError."""
    first, *others = groups
    n_runs = len(first) - 1
    if n_runs > MAX_RUNS:
        raise UserError(f"{n_runs} results: at most {MAX_RUNS} can be compared")
    for group in others:
        if len(group) - 1 != n_runs:
            raise UserError(
                f"--split {group[0]}: {len(group) - 1} results, but {first[0]} has {n_runs}; "
                "give one result per run, in the same order"
            )
    return [_read_split(index, results, subset) for index, *results in groups]


def _read_split(index_path: Path, files: Sequence[Path], subset: str) -> Split:
    index = read_any_index(index_path)
    targets = labelled(index, subset)
    runs = []
    for path in files:
        results = read_results(path)
        _check_labels(index, path, {video: results[video] for video in targets if video in results})
        runs.append(top1_hits(index, results, targets))
    videos = tuple(video for video in targets if all(video in hits for hits in runs))
    if not videos:
        counts = ", ".join(f"{path}: {len(hits)}" for path, hits in zip(files, runs, strict=True))
        raise UserError(
            f"{index_path}: none of its {len(targets)} labelled {SUBSETS[subset]} videos has a "
            f"result in every run ({counts})"
        )
    return Split(
        index=index_path,
        files=tuple(files),
        n_videos=len(targets),
        lacking=tuple(tuple(v for v in targets if v not in hits) for hits in runs),
        videos=videos,
        labels=tuple(index.labels[targets[video]] for video in videos),
        hits=np.array([[hits[video] for video in videos] for hits in runs]),
    )


def _check_labels(index: Index, path: Path, results: Mapping[str, Entries]) -> None:
    """Raise UserError if the best labels of a result are none of the index: all would be wrong."""
    best = {ranking[0][0] for entries in results.values() if (ranking := averaged(entries))}
    if best and not best & set(index.labels):
        raise UserError(
            f"{path}: none of its labels is in {index.path}, for example "
            f"{', '.join(map(shown_name, first_few(sorted(best), 3)))}"
        )


def compare_with_first(hits: np.ndarray) -> list[Pair]:
    """Pair the first run with each of the others, from (runs, N) bool."""
    return [
        Pair(0, b, int((hits[0] & ~hits[b]).sum()), int((hits[b] & ~hits[0]).sum()))
        for b in range(1, len(hits))
    ]


def pool_splits(splits: Sequence[Split]) -> np.ndarray | None:
    """Concatenate the hits of all splits, (runs, N). None if splits share videos: counting those
    twice would overstate the evidence."""
    names = [video for split in splits for video in split.videos]
    if len(set(names)) < len(names):
        return None
    return np.concatenate([split.hits for split in splits], axis=1)


def class_differences(splits: Sequence[Split], b: int) -> list[ClassDifference]:
    """Compare the first run with run `b` class by class, largest difference first."""
    columns: dict[str, list[np.ndarray]] = {}
    for split in splits:
        for label, column in zip(split.labels, split.hits[[0, b]].T, strict=True):
            columns.setdefault(label, []).append(column)
    rows = [
        ClassDifference(label, len(hits), *np.mean(hits, axis=0).tolist())
        for label, hits in columns.items()
    ]
    return sorted(rows, key=lambda r: (-abs(r.accuracy_b - r.accuracy_a), -r.n_videos, r.label))


def run_name(number: int) -> str:
    return string.ascii_uppercase[number]


def verdict(pair: Pair, level: float) -> str:
    """Say in one line whether one of the two runs is significantly better."""
    a, b = run_name(pair.a), run_name(pair.b)
    n = pair.only_a + pair.only_b
    if n == 0:
        return f"{a} and {b} are right on the same videos"
    if pair.p < level:
        better, worse = (b, a) if pair.only_b > pair.only_a else (a, b)
        answer = f"{better} is better than {worse}"
    else:
        answer = f"no significant difference between {a} and {b}"
    few = "; too few videos differ for any significant result" if mcnemar_p(0, n) >= level else ""
    return (
        f"{answer}: only {b} is right on {pair.only_b} videos, only {a} on {pair.only_a}, "
        f"p = {pair.p:.3g}{few}"
    )


def describe(splits: Sequence[Split], *, subset: str, n_classes: int) -> Iterator[str]:
    """Yield the lines of the comparison; `n_classes` limits the classes listed per pair."""
    n_pairs = len(splits[0].files) - 1
    n_tests = n_pairs * len(splits)
    level = LEVEL / max(1, n_tests)
    for split in splits:
        yield f"{split.index}: {len(split.videos)} of {split.n_videos} {SUBSETS[subset]} videos"
        yield from _accuracies(split)
        yield from (f"  {verdict(pair, level)}" for pair in compare_with_first(split.hits))
    if len(splits) > 1:
        yield from _over_splits(splits, LEVEL / max(1, n_pairs))
    if n_tests > 1:
        yield f"significance level of each test: {LEVEL} / {n_tests} (Bonferroni correction)"
    if n_pairs and len(splits) > 1 and pool_splits(splits) is not None:
        divided = f" / {n_pairs}" if n_pairs > 1 else ""
        yield f"significance level of the test over all splits: {LEVEL}{divided}"
    for b in range(1, n_pairs + 1) if n_classes else ():
        unit = "videos" if pool_splits(splits) is not None else "results"
        yield from _classes(class_differences(splits, b), b, n_classes, unit)


def _accuracies(split: Split) -> Iterator[str]:
    for number, (path, hits) in enumerate(zip(split.files, split.hits, strict=True)):
        n_hits, n = int(hits.sum()), len(hits)
        low, high = wilson_interval(n_hits, n)
        yield (
            f"  {run_name(number)} {n_hits / n:.4f} ({n_hits} right), 95% interval {low:.4f} to "
            f"{high:.4f}: {path}"
        )
    n_excluded = split.n_videos - len(split.videos)
    if n_excluded:
        yield f"  excluded: {n_excluded} videos without a result in every run"
        for number, videos in enumerate(split.lacking):
            if videos:
                yield f"    {run_name(number)} has no result for {len(videos)}: {join_few(videos)}"


def _over_splits(splits: Sequence[Split], level: float) -> Iterator[str]:
    accuracies = np.array([split.accuracies for split in splits])  # (splits, runs)
    yield f"mean over {len(splits)} splits ± standard deviation (minimum to maximum)"
    for number, column in enumerate(accuracies.T):
        yield f"  {run_name(number)} {_spread(column, '.4f')}"
    for number in range(1, accuracies.shape[1]):
        difference = accuracies[:, number] - accuracies[:, 0]
        yield f"  {run_name(number)} - {run_name(0)} {_spread(difference, '+.4f')}"
    hits = pool_splits(splits)
    if accuracies.shape[1] > 1 and hits is None:
        yield "  no test over all splits: they share videos, which would be counted twice"
    elif hits is not None:
        yield from (f"  {verdict(pair, level)}" for pair in compare_with_first(hits))


def _spread(values: np.ndarray, form: str) -> str:
    low, high = format(values.min(), form), format(values.max(), form)
    return f"{mean(values.tolist()):{form}} ± {stdev(values.tolist()):.4f} ({low} to {high})"


def _classes(rows: Sequence[ClassDifference], b: int, n_classes: int, unit: str) -> Iterator[str]:
    a_name, b_name = run_name(0), run_name(b)
    differing = [row for row in rows if row.accuracy_a != row.accuracy_b]
    if not differing:
        yield f"classes: {a_name} and {b_name} have the same accuracy on each"
        return
    shown = differing[:n_classes]
    yield (
        f"largest class differences between {a_name} and {b_name}: {len(shown)} of "
        f"{len(differing)} that differ, of {len(rows)} classes (some differ by chance)"
    )
    for label, n, of_a, of_b in shown:
        yield (
            f"  {of_b - of_a:+.3f}  {shown_name(label)}: "
            f"{a_name} {of_a:.3f}, {b_name} {of_b:.3f} of {n} {unit}"
        )


def as_plain(splits: Sequence[Split]) -> dict[str, Any]:
    """Return the whole comparison as JSON values."""
    accuracies = np.array([split.accuracies for split in splits])  # (splits, runs)
    hits = pool_splits(splits)
    n_runs = accuracies.shape[1]
    return {
        "runs": [run_name(number) for number in range(n_runs)],
        "splits": [_plain_split(split) for split in splits],
        "means": [mean(column.tolist()) for column in accuracies.T],
        "deviations": [
            stdev(column.tolist()) if len(splits) > 1 else None for column in accuracies.T
        ],
        "pairs": None if hits is None else [_plain_pair(p) for p in compare_with_first(hits)],
        "classes": {
            run_name(b): [
                {"label": label, "videos": n, run_name(0): of_a, run_name(b): of_b}
                for label, n, of_a, of_b in class_differences(splits, b)
            ]
            for b in range(1, n_runs)
        },
    }


def _plain_split(split: Split) -> Mapping[str, Any]:
    runs = []
    for path, hits, lacking in zip(split.files, split.hits, split.lacking, strict=True):
        n_hits = int(hits.sum())
        runs.append(
            {
                "file": str(path),
                "accuracy": n_hits / len(hits),
                "n_hits": n_hits,
                "interval": wilson_interval(n_hits, len(hits)),
                "lacking": list(lacking),
            }
        )
    return {
        "index": str(split.index),
        "n_videos": split.n_videos,
        "n_common": len(split.videos),
        "runs": runs,
        "pairs": [_plain_pair(pair) for pair in compare_with_first(split.hits)],
    }


def _plain_pair(pair: Pair) -> dict[str, Any]:
    only = {"only_a": pair.only_a, "only_b": pair.only_b}
    return {"a": run_name(pair.a), "b": run_name(pair.b), **only, "p": pair.p}
