"""{subset}.json: the scores of each video, and how right they are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np

from datasets.index import (
    UNLABELLED,
    Index,
    canonical_subset,
)
from errors import UserError
from evaluation.metrics import FEW, could_be, mean_class_accuracy, wilson_interval
from utils.files import write_json
from utils.reading import Finite, decode_text, parse_json, read_bytes, shown_name, typed

KS = (1, 5)  # the k of the top-k accuracies that are told without being asked
NAMED = 5  # videos that a line names before "and N more"

Entries = list[dict[str, Any]]


def ranked(scores: np.ndarray, labels: Sequence[str], topk: int) -> Entries:
    """(K,) scores -> the `topk` highest as {"label", "score"}, all for topk <= 0.

    Outputs beyond the labels are left out; the scores of the others stay as they are. Of equal
    scores the lower class number comes first.
    """
    known = np.asarray(scores)[: len(labels)]
    order = np.argsort(-known, kind="stable")[: topk if topk > 0 else None]
    return [{"label": labels[i], "score": float(known[i])} for i in order]


def write_results(path: Path, results: Mapping[str, Entries]) -> None:
    """Write {"results": …}, whole or not at all. Raises UserError where it can't be written."""
    write_json(path, {"results": dict(results)})


class Score(TypedDict):
    label: str
    score: Finite


class Window(TypedDict):
    """One entry of --inference_no_average; "segment" beside it is not needed for an accuracy."""

    result: list[Score]


class _Id(str):
    """A type of its own, so that msgspec calls a hook for every id."""


class _Scores(msgspec.Struct):
    results: dict[_Id, list[Score]]


class _Windows(msgspec.Struct):
    results: dict[_Id, list[Window]]


def read_results(path: Path) -> dict[str, Entries]:
    """Read what write_results wrote. Raises UserError for any other file."""
    raw = read_bytes(path, "result file")
    for kind in (_Scores, _Windows):
        if (found := _decode(raw, kind)) is not None:
            return found
    return _read_strictly(decode_text(raw, path, "result file"), path)


def _decode(raw: bytes, kind: type[_Scores] | type[_Windows]) -> dict[str, Entries] | None:
    """The results of a sound file, fast; None where the strict reader must find out what is wrong,
    or read names that are not UTF-8."""
    ids: list[str] = []

    def note(kind: type, name: str) -> _Id:
        ids.append(name)
        return _Id(name)

    try:
        results = msgspec.json.decode(raw, type=kind, dec_hook=note).results
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    if len(results) < len(ids):
        return None
    return dict(zip(ids, results.values(), strict=True))  # type: ignore[arg-type]


def _read_strictly(text: str, path: Path) -> dict[str, Entries]:
    content = parse_json(text, path, "result file")
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise UserError(f"{path}: no result file: it has no object 'results'")
    for video_id, entries in content["results"].items():
        first = next(iter(entries), None) if isinstance(entries, list) else None
        has_windows = isinstance(first, dict) and "result" in first
        kind = list[Window] if has_windows else list[Score]
        typed(entries, kind, f"{path}: {shown_name(video_id)}")
    return content["results"]


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a result file over the labelled videos of a subset.

    Without `ignore_missing` a missing video is wrong. `top` maps k to the share of videos whose
    label is among the first k; a k beyond the entries kept per video is not in it, since what a
    longer list would have held is not known.
    """

    n_videos: int  # labelled videos of the subset
    n_results: int  # videos of the result file
    n_labels: int
    missing: tuple[str, ...]  # labelled videos without a result
    strangers: tuple[str, ...]  # results of videos that are no labelled ones of the subset
    unknown_labels: tuple[str, ...]  # labels of counted results that the index does not have
    ignore_missing: bool
    averaged: bool  # the result holds windows, whose scores were averaged here
    n_hits: int  # videos that are right at top-1
    top: dict[int, float]
    mean_class: float
    interval: tuple[float, float]  # Wilson 95%, of top-1

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
    """Compare results with the index. Raises UserError if not one video can be compared."""
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
        strangers=tuple(video for video in results if video not in targets),
        unknown_labels=tuple(sorted({*chain(*rankings.values())} - {*index.labels})),
        ignore_missing=ignore_missing,
        averaged=any(is_windowed(results[video]) for video in rankings),
        n_hits=n_hits,
        top={k: float((ranks <= k).mean()) for k in sorted({1, *ks}) if k == 1 or k <= largest_k},
        mean_class=mean_class_accuracy(ranks == 1, np.array([targets[v] for v in counted])),
        interval=wilson_interval(n_hits, len(counted)),
    )


def labelled(index: Index, subset: str) -> dict[str, int]:
    """The class numbers of a subset's labelled videos, in the index's order."""
    entries = index.entries.of_subset(canonical_subset(subset))
    return {entry.video_id: entry.label for entry in entries if entry.label != UNLABELLED}


def top1_hits(
    index: Index, results: Mapping[str, Entries], targets: Mapping[str, int]
) -> dict[str, bool]:
    """Whether the first label is the right one, of each video of `targets` that has a result."""
    rankings = {video: _ranking(results[video]) for video in targets if video in results}
    return {v: _rank(index.labels[targets[v]], ranking) == 1 for v, ranking in rankings.items()}


def is_windowed(entries: Entries) -> bool:
    """Whether a video's entries are windows, as --inference_no_average writes them."""
    return bool(entries) and "result" in entries[0]


def _n_kept(videos: Iterable[Entries]) -> int:
    """The fewest entries that a video, or a window of one, was saved with."""
    lists = chain.from_iterable(
        [window["result"] for window in entries] if is_windowed(entries) else [entries]
        for entries in videos
    )
    return min((len(entries) for entries in lists if entries), default=0)


def averaged(entries: Entries) -> list[tuple[str, float]]:
    """The labels of one video with their scores, best first; a NaN score is no prediction.

    The scores of windows (--inference_no_average) are averaged. A label that a window leaves out
    counts 0 there, so a small --output_topk makes this differ from averaging all scores.
    """
    windows = [entry["result"] for entry in entries] if is_windowed(entries) else [entries]
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
    """1 for the best; infinity where the label is not in the ranking."""
    return ranking.index(label) + 1 if label in ranking else math.inf


def caution(accuracy: Accuracy, subset: str) -> str | None:
    """What the accuracy of a few videos of `subset` does not tell; None where there are enough."""
    n = accuracy.n_counted
    if n >= FEW:
        return None
    return (
        f"{n} {canonical_subset(subset)} videos: {could_be(accuracy.n_hits, n)}; videos from other "
        "places or cameras may do worse still"
    )


def describe(accuracy: Accuracy, *, ks: Sequence[int] = KS) -> list[str]:
    """The lines that main.py and eval_accuracy print."""
    a = accuracy
    low, high = a.interval
    lines = [
        f"video top-1 {a.top[1]:.4f}: {a.n_hits} of {a.n_counted} videos right, "
        f"95% interval {low:.4f} to {high:.4f}"
    ]
    for k in sorted({*ks} - {1}):
        if k not in a.top:
            lines.append(f"video top-{k} unknown: the result holds fewer than {k} entries a video")
        else:
            trivial = f" (there are only {a.n_labels} labels)" if k >= a.n_labels else ""
            lines.append(f"video top-{k} {a.top[k]:.4f}{trivial}")
    lines.append(f"mean class accuracy {a.mean_class:.4f}")
    if a.missing:
        how = "left out of the count" if a.ignore_missing else "counted as wrong"
        lines.append(
            f"{len(a.missing)} of {a.n_videos} videos have no result, {how}: {some(a.missing)}"
        )
    else:
        lines.append(f"all {a.n_videos} videos have a result")
    if a.averaged:
        lines.append("the result holds windows: the scores they kept were averaged per video")
    if a.strangers:
        lines.append(
            f"{len(a.strangers)} results are not of the subset's labelled videos, "
            f"not counted: {some(a.strangers)}"
        )
    if a.unknown_labels:
        lines.append(
            f"{len(a.unknown_labels)} labels of the result are not in the index: "
            f"{some(a.unknown_labels)}"
        )
    return lines


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(shown_name, names[:NAMED])) + more
