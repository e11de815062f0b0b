"""Read and write result files ({subset}.json), and compute their accuracy."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from datasets.index import UNLABELLED, Index, canonical_subset
from errors import UserError
from evaluation.metrics import (
    FEW,
    WIDE,
    describe_interval,
    interval_width,
    mean_class_accuracy,
    wilson_interval,
)
from utils.files import write_json
from utils.reading import Finite, read_json, shown, shown_name, typed
from utils.text import join_few

KS = (1, 5)  # the k of the top-k accuracies that are always computed

Entries = list[dict[str, Any]]


def ranked(scores: np.ndarray, labels: Sequence[str], topk: int) -> Entries:
    """Return the `topk` highest of (K,) scores as {"label", "score"}, all for topk <= 0.

    Outputs without a label are excluded, without renormalising the others. The lower class number
    wins ties.
    """
    known = np.asarray(scores)[: len(labels)]
    order = np.argsort(-known, kind="stable")[: topk if topk > 0 else None]
    return [{"label": labels[i], "score": float(known[i])} for i in order]


def write_results(path: Path, results: Mapping[str, Entries]) -> None:
    """Write {"results": …}, whole or not at all. Raises UserError if it can't be written."""
    write_json(path, {"results": dict(results)})


class Score(TypedDict):
    label: str
    score: Finite


class Window(TypedDict):
    """One entry of --inference_no_average; its "segment" is not needed for the accuracy."""

    result: list[Score]


def read_results(path: Path) -> dict[str, Entries]:
    """Read a file of write_results. Raises UserError for any other file, and for a label that is
    listed twice for one video or window."""
    content = read_json(path, "result file")
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise UserError(f"{path}: not a result file: it has no object 'results'")
    for video_id, entries in content["results"].items():
        place = f"{path}: {shown_name(video_id)}"
        first = next(iter(entries), None) if isinstance(entries, list) else None
        has_windows = isinstance(first, dict) and "result" in first
        typed(entries, list[Window] if has_windows else list[Score], place)
        for scores in _lists_of(entries):
            labels = [entry["label"] for entry in scores]
            if len(set(labels)) < len(labels):
                twice = next(label for label, count in Counter(labels).items() if count > 1)
                raise UserError(f"{place}: label {shown(twice)} is listed twice")
    return content["results"]


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a result file over the labelled videos of a subset.

    Without `ignore_missing` a missing video counts as wrong. `top` maps k to top-k accuracy; it
    has no k above the number of entries saved per video, for which the accuracy is unknown.
    """

    n_videos: int  # labelled videos of the subset
    n_results: int  # videos of the result file
    n_labels: int
    missing: tuple[str, ...]  # labelled videos without a result
    not_in_subset: tuple[str, ...]  # results of other videos than the labelled ones of the subset
    unknown_labels: tuple[str, ...]  # labels in counted results that are not in the index
    ignore_missing: bool
    averaged: bool  # window scores were averaged per video
    n_hits: int  # top-1
    top: dict[int, float]
    mean_class: float
    interval: tuple[float, float]  # Wilson 95% interval of top-1

    @property
    def n_counted(self) -> int:
        return self.n_videos - len(self.missing) if self.ignore_missing else self.n_videos


def accuracy_of(
    index: Index,
    results: Mapping[str, Entries],
    subset: str,
    *,
    ks: Sequence[int] = KS,
    ignore_missing: bool = False,
) -> Accuracy:
    """Compute the accuracy of results. Raises UserError if no labelled video has a result."""
    subset = canonical_subset(subset)
    targets = labelled(index, subset)
    rankings = {video: _ranking(results[video]) for video in targets if video in results}
    if not rankings:
        raise UserError(
            f"{index.path}: none of its {len(targets)} labelled {subset} videos has a result"
        )
    counted = [video for video in targets if video in rankings or not ignore_missing]
    ranks = np.array([_rank(index.labels[targets[v]], rankings.get(v, [])) for v in counted])
    n_kept = _n_kept(results[video] for video in rankings)
    largest_k = n_kept if n_kept < len(index.labels) else math.inf
    n_hits = int((ranks == 1).sum())
    return Accuracy(
        n_videos=len(targets),
        n_results=len(results),
        n_labels=len(index.labels),
        missing=tuple(video for video in targets if video not in results),
        not_in_subset=tuple(video for video in results if video not in targets),
        unknown_labels=tuple(sorted({*chain(*rankings.values())} - {*index.labels})),
        ignore_missing=ignore_missing,
        averaged=any(is_windowed(results[video]) for video in rankings),
        n_hits=n_hits,
        top={k: float((ranks <= k).mean()) for k in sorted({1, *ks}) if k == 1 or k <= largest_k},
        mean_class=mean_class_accuracy(ranks == 1, np.array([targets[v] for v in counted])),
        interval=wilson_interval(n_hits, len(counted)),
    )


def labelled(index: Index, subset: str) -> dict[str, int]:
    """Map the labelled videos of a subset to their class numbers, in the order of the index."""
    entries = index.entries.of_subset(canonical_subset(subset))
    return {entry.video_id: entry.label for entry in entries if entry.label != UNLABELLED}


def top1_hits(
    index: Index, results: Mapping[str, Entries], targets: Mapping[str, int]
) -> dict[str, bool]:
    """Map each video of `targets` that has a result to whether its top-1 label is correct."""
    rankings = {video: _ranking(results[video]) for video in targets if video in results}
    return {v: _rank(index.labels[targets[v]], ranking) == 1 for v, ranking in rankings.items()}


def is_windowed(entries: Entries) -> bool:
    """Return whether a video's entries are windows, as --inference_no_average writes them."""
    return bool(entries) and "result" in entries[0]


def _lists_of(entries: Entries) -> list[Entries]:
    """Return the scored labels of each window of a video, or of the whole video."""
    return [window["result"] for window in entries] if is_windowed(entries) else [entries]


def _n_kept(videos: Iterable[Entries]) -> int:
    """Return the smallest number of entries saved for a video or a window."""
    lists = chain.from_iterable(map(_lists_of, videos))
    return min((len(entries) for entries in lists if entries), default=0)


def averaged(entries: Entries) -> list[tuple[str, float]]:
    """Rank the labels of one video by score, best first; NaN scores are dropped.

    Window scores (--inference_no_average) are averaged. A label that a window does not list counts
    as 0 there, so with a small --output_topk this differs from averaging all scores.
    """
    windows = _lists_of(entries)
    sums: dict[str, float] = {}
    for entry in chain.from_iterable(windows):
        sums[entry["label"]] = sums.get(entry["label"], 0.0) + entry["score"]
    numbers = {label: score for label, score in sums.items() if not math.isnan(score)}
    return [
        (label, numbers[label] / len(windows))
        for label in sorted(numbers, key=lambda label: -numbers[label])
    ]


def _ranking(entries: Entries) -> list[str]:
    return [label for label, _ in averaged(entries)]


def _rank(label: str, ranking: Sequence[str]) -> float:
    """Return 1 for the best, and infinity if the label is not in the ranking."""
    return ranking.index(label) + 1 if label in ranking else math.inf


def few_videos_warning(accuracy: Accuracy, subset: str) -> str | None:
    """Say in a sentence what `subset` is too small to tell; None if its interval is narrow."""
    n, hits = accuracy.n_counted, accuracy.n_hits
    if n >= FEW and interval_width(hits, n) <= WIDE:
        return None
    only = "only " if n < FEW else ""
    return (
        f"with {only}{n} {canonical_subset(subset)} videos, {describe_interval(hits, n)}; accuracy "
        "on videos from other places or cameras may be lower still"
    )


def describe(accuracy: Accuracy, *, ks: Sequence[int] = KS) -> list[str]:
    """Return the lines that main.py and eval_accuracy print."""
    a = accuracy
    low, high = a.interval
    lines = [
        f"video top-1 {a.top[1]:.4f}: {a.n_hits} of {a.n_counted} videos right, "
        f"95% interval {low:.4f} to {high:.4f}"
    ]
    for k in sorted({*ks} - {1}):
        if k not in a.top:
            lines.append(f"video top-{k} unknown: fewer than {k} entries were saved per video")
        else:
            trivial = f" (trivial: there are only {a.n_labels} labels)" if k >= a.n_labels else ""
            lines.append(f"video top-{k} {a.top[k]:.4f}{trivial}")
    lines.append(f"mean class accuracy {a.mean_class:.4f}")
    if a.missing:
        how = "excluded" if a.ignore_missing else "counted as wrong"
        lines.append(
            f"{len(a.missing)} of {a.n_videos} videos have no result, {how}: {join_few(a.missing)}"
        )
    else:
        lines.append(f"all {a.n_videos} videos have a result")
    if a.averaged:
        lines.append("the result file contains windows: their saved scores were averaged per video")
    if a.not_in_subset:
        lines.append(
            f"{len(a.not_in_subset)} results are not for labelled videos of the subset, "
            f"not counted: {join_few(a.not_in_subset)}"
        )
    if a.unknown_labels:
        lines.append(
            f"{len(a.unknown_labels)} labels in the result are not in the index: "
            f"{join_few(a.unknown_labels)}"
        )
    return lines
