"""The comparison of benchmarks.accuracy: finished runs in, JSON values and a Markdown table out."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from datasets.activitynet import read_any_index
from errors import UserError
from evaluation.comparison import Split, compare_with_first, read_splits
from evaluation.metrics import mean_class_accuracy
from reporting.facts import read_log
from utils.files import write_text
from utils.text import markdown_table

SUBSET = "val"
FEW_SEEDS = 5  # with fewer, intervals exclude 0 too often where recipes are equal
N_RESAMPLED = 10_000  # of the bootstrap
COLUMNS = (
    "recipe",
    "video top-1, mean ± standard error",
    "per seed",
    "mean of classes",
    "minutes of training",
    "minutes to the first one's accuracy",
    "difference from the first, 95% interval",
    "p",
)


@dataclass(frozen=True)
class SetRuns:
    """The finished runs on one set: {seed: a results folder per recipe}."""

    index: Path
    names: Sequence[str]
    folders: Mapping[int, Sequence[Path]]


def plain_comparison(runs: SetRuns) -> dict[str, Any]:
    """Compare every recipe with the first; return JSON values. Raises UserError."""
    splits = [
        read_splits([[runs.index, *(f / f"{SUBSET}.json" for f in row)]], SUBSET)[0]
        for row in runs.folders.values()
    ]
    if any(split.videos != splits[0].videos for split in splits):
        raise UserError(f"{runs.index}: some seeds lack results of videos that others have")
    hits = np.stack([split.hits for split in splits], axis=1)  # (recipes, seeds, videos)
    curves = [[_curve(folders[i]) for folders in runs.folders.values()] for i in range(len(hits))]
    target = _final_accuracy(curves[0])
    labels = np.unique(splits[0].labels, return_inverse=True)[1]
    return {
        "index": str(runs.index),
        "videos": len(splits[0].videos),
        "classes": len(read_any_index(runs.index).labels),
        "seeds": list(runs.folders),
        "recipes": {
            name: _plain_recipe(of_recipe, labels) | _plain_times(curve, target)
            for name, of_recipe, curve in zip(runs.names, hits, curves, strict=True)
        },
        "against the first": {
            name: _plain_pair(hits[0], hits[number], number, splits)
            for number, name in enumerate(runs.names[1:], 1)
        },
    }


def _plain_recipe(hits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Describe one recipe, from (seeds, videos) bool."""
    accuracies = hits.mean(axis=1).tolist()
    return {
        "accuracies": accuracies,
        "mean": mean(accuracies),
        "standard_error": _standard_error(accuracies),
        "mean_class_accuracy": mean(mean_class_accuracy(row, labels) for row in hits),
    }


def _plain_pair(
    first: np.ndarray, other: np.ndarray, number: int, splits: Sequence[Split]
) -> dict[str, Any]:
    """Compare two recipes, (seeds, videos) bool each: all seeds together, and McNemar's test for
    each."""
    found = paired_bootstrap(first, other)
    pairs = [compare_with_first(split.hits)[number - 1] for split in splits]
    n_errors = int((~first).sum())
    return {
        "difference": found.mean,
        "standard_error": _standard_error((other.mean(axis=1) - first.mean(axis=1)).tolist()),
        "interval": list(found.interval),
        "p": found.p,
        "error_ratio": int((~other).sum()) / n_errors if n_errors else None,
        "mcnemar": [
            {"only_first": pair.only_a, "only_this": pair.only_b, "p": pair.p} for pair in pairs
        ],
    }


class MeanDifference(NamedTuple):
    """The mean difference of two accuracies, with a 95% interval and a two-sided p."""

    mean: float
    interval: tuple[float, float]
    p: float


def paired_bootstrap(hits_a: np.ndarray, hits_b: np.ndarray) -> MeanDifference:
    """Estimate how much more accurate b is than a, from (seeds, N) bool each of the same videos.

    Resamples training seeds and videos, both with replacement (Efron and Tibshirani 1993,
    doi:10.1201/9780429246593): the interval covers what other seeds and other videos would change.
    p is twice the share of samples on the other side of 0. A few seeds vary less when resampled
    than in truth, so with fewer than 5 look at the difference per seed, too.
    """
    differences = np.asarray(hits_b, np.float64) - np.asarray(hits_a, np.float64)
    n_seeds, n_videos = differences.shape
    draw = np.random.default_rng(0)
    means = np.empty(N_RESAMPLED)
    for i in range(N_RESAMPLED):
        chosen = draw.integers(n_seeds, size=n_seeds)
        per_video = differences[chosen].mean(axis=0)
        means[i] = per_video[draw.integers(n_videos, size=n_videos)].mean()
    low, high = np.percentile(means, (2.5, 97.5)).tolist()
    n_other = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (n_other + 1) / (N_RESAMPLED + 1))
    return MeanDifference(float(differences.mean()), (low, high), p)


def _standard_error(values: Sequence[float]) -> float | None:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def _curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the minutes of training up to the end of each epoch, and the video accuracies then;
    no accuracies if a run did not validate."""
    times, val = read_log(folder / "time.log"), read_log(folder / "val.log")
    minutes = np.zeros(0) if times is None else np.cumsum(np.nan_to_num(times["train"])) / 60
    return minutes, np.zeros(0) if val is None else val["video_acc"]


def _final_accuracy(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    finals = [float(accuracies[-1]) for _, accuracies in curves if len(accuracies)]
    return mean(finals) if len(finals) == len(curves) else None


def _plain_times(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], target: float | None
) -> dict[str, Any]:
    """Return the minutes of training per seed, and those until the accuracy reaches `target`,
    None where it does not."""
    reached: list[float | None] = []
    for minutes, accuracies in curves:
        n = min(len(minutes), len(accuracies))  # of epochs in both logs
        hits = accuracies[:n] >= (np.inf if target is None else target)
        reached.append(float(minutes[hits.argmax()]) if hits.any() else None)
    totals = [float(minutes[-1]) if len(minutes) else None for minutes, _ in curves]
    return {"minutes": totals, "minutes_to_first": reached}


def write_tables(path: Path, sets: Mapping[str, Mapping[str, Any]], common: Sequence[str]) -> None:
    """Write a table per set. Raises UserError if the file can't be written."""
    write_text(path, "\n".join(_page(sets, common)) + "\n")


def _page(sets: Mapping[str, Mapping[str, Any]], common: Sequence[str]) -> Iterator[str]:
    yield f"Flags of all runs: `{shlex.join(common)}`" if common else "No flags but the recipes'."
    for name, compared in sets.items():
        seeds = " ".join(map(str, compared["seeds"]))
        yield f"\n## {name}: {compared['videos']} videos, seeds {seeds}\n"
        if len(compared["seeds"]) < FEW_SEEDS:
            yield (
                f"With fewer than {FEW_SEEDS} seeds, intervals are too narrow and p too small: few "
                "runs hardly show how much runs differ.\n"
            )
        pairs = compared["against the first"]
        rows = (_row(name, found, pairs.get(name)) for name, found in compared["recipes"].items())
        yield from markdown_table(COLUMNS, rows)


def _row(name: str, found: Mapping[str, Any], pair: Mapping[str, Any] | None) -> list[str]:
    error = found["standard_error"]
    spread = "" if error is None else f" ± {100 * error:.1f}"
    cells = [
        name,
        f"{100 * found['mean']:.1f}{spread}",
        " ".join(f"{100 * accuracy:.1f}" for accuracy in found["accuracies"]),
        f"{100 * found['mean_class_accuracy']:.1f}",
        _mean_minutes(found["minutes"]),
        _mean_minutes(found["minutes_to_first"]),
    ]
    if pair is None:
        cells += ["–", "–"]
    else:
        points = [100 * value for value in (pair["difference"], *pair["interval"])]
        cells += ["{:+.1f} ({:+.1f} to {:+.1f})".format(*points), f"{pair['p']:.2g}"]
    return cells


def _mean_minutes(values: Sequence[float | None]) -> str:
    """Write the mean, and how many seeds it is of, if not all."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    some = "" if len(known) == len(values) else f" ({len(known)} of {len(values)} seeds)"
    return f"{mean(known):.1f}{some}"
