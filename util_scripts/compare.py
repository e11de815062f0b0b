"""Runs side by side on the same videos: the accuracy of each, and whether one is better.

A video counts if it has a label and a result of every run; it is right if its first label is, and
windows (--inference_no_average) are averaged. The first run is compared with each of the others by
McNemar's exact test, which looks at the videos that one of the two alone has right: intervals of
two accuracies may overlap though one run is clearly better. Runs on several splits, such as the
three of UCF-101, are given split by split:

    compare ucf101_01.json A1/val.json B1/val.json
            --split ucf101_02.json A2/val.json B2/val.json
            --split ucf101_03.json A3/val.json B3/val.json
"""

import argparse
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from datasets.activitynet import read_any_index
from datasets.index import SUBSETS
from errors import UserError
from evaluation.metrics import mcnemar_p, wilson_interval
from evaluation.results import labelled, read_results, some, top1_hits
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.files import write_json
from utils.outputs import COMPARISON
from utils.reading import shown_name

LEVEL = 0.05  # of all comparisons together


@dataclass(frozen=True)
class Split:
    """What several runs got right of one index's videos that all of them have a result for."""

    index: Path
    files: tuple[Path, ...]  # of the runs
    n_videos: int  # labelled ones of the subset
    lacking: tuple[tuple[str, ...], ...]  # of each run: labelled videos without a result
    videos: tuple[str, ...]  # (N,) common to all runs
    labels: tuple[str, ...]  # (N,) their classes
    hits: np.ndarray  # bool (runs, N)

    @property
    def accuracies(self) -> list[float]:
        return [float(row.mean()) for row in self.hits]


@dataclass(frozen=True)
class Pair:
    """Two runs, by their numbers: videos that one of them alone has right, and McNemar's p."""

    a: int
    b: int
    only_a: int
    only_b: int

    @property
    def p(self) -> float:
        return mcnemar_p(self.only_a, self.only_b)


def read_split(index_path: Path, files: Sequence[Path], subset: str) -> Split:
    """Raises UserError if a file can't be read, or no video is common to all runs."""
    index = read_any_index(index_path)
    targets = labelled(index, subset)
    runs = [top1_hits(index, read_results(path), targets) for path in files]
    videos = tuple(video for video in targets if all(video in hits for hits in runs))
    if not videos:
        counts = ", ".join(f"{path} of {len(hits)}" for path, hits in zip(files, runs, strict=True))
        raise UserError(
            f"{index_path}: none of its {len(targets)} labelled {SUBSETS[subset]} videos has a "
            f"result of every run: {counts}"
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


def pairs_of(hits: np.ndarray) -> list[Pair]:
    """The first run with each of the others, from (runs, N) bool."""
    return [
        Pair(0, b, int((hits[0] & ~hits[b]).sum()), int((hits[b] & ~hits[0]).sum()))
        for b in range(1, len(hits))
    ]


def together(splits: Sequence[Split]) -> np.ndarray | None:
    """The hits on the videos of all splits, (runs, N), or None where splits share videos: these
    would count as more evidence than they are."""
    names = [video for split in splits for video in split.videos]
    if len(set(names)) < len(names):
        return None
    return np.concatenate([split.hits for split in splits], axis=1)


def class_differences(splits: Sequence[Split], b: int) -> list[tuple[str, int, float, float]]:
    """(label, videos, accuracy of the first run, of run `b`), the largest difference first."""
    rows: dict[str, list[np.ndarray]] = {}
    for split in splits:
        for label, column in zip(split.labels, split.hits[[0, b]].T, strict=True):
            rows.setdefault(label, []).append(column)
    found = []
    for label, columns in rows.items():
        of_a, of_b = np.mean(columns, axis=0).tolist()
        found.append((label, len(columns), of_a, of_b))
    return sorted(found, key=lambda row: (-abs(row[3] - row[2]), -row[1], row[0]))


def name(number: int) -> str:
    return string.ascii_uppercase[number]


def verdict(pair: Pair, level: float) -> str:
    """Is the second run better than the first? In plain words."""
    a, b = name(pair.a), name(pair.b)
    n = pair.only_a + pair.only_b
    if n == 0:
        return f"{a} and {b} are right on the same videos"
    if pair.p < level:
        better, worse = (b, a) if pair.only_b > pair.only_a else (a, b)
        answer = f"{better} is better than {worse}"
    else:
        answer = f"no difference between {a} and {b} is established"
    few = "; so few could not establish one" if mcnemar_p(0, n) >= level else ""
    return (
        f"{answer}: {b} alone is right on {pair.only_b} videos, {a} alone on {pair.only_a}, "
        f"p = {pair.p:.3g}{few}"
    )


def describe(splits: Sequence[Split], *, subset: str, n_classes: int) -> Iterator[str]:
    """The lines of the report."""
    n_runs = len(splits[0].files)
    level = LEVEL / max(1, n_runs - 1)
    for split in splits:
        yield f"{split.index}: {len(split.videos)} of {split.n_videos} {SUBSETS[subset]} videos"
        yield from _accuracies(split)
        yield from (f"  {verdict(pair, level)}" for pair in pairs_of(split.hits))
    if len(splits) > 1:
        yield from _over_splits(splits, level)
    if n_runs > 2:
        yield f"each p is held against {LEVEL} / {n_runs - 1}, since there are {n_runs - 1} of them"
    for b in range(1, n_runs) if n_classes else ():
        yield from _classes(class_differences(splits, b), b, n_classes)


def _accuracies(split: Split) -> Iterator[str]:
    for number, (path, hits) in enumerate(zip(split.files, split.hits, strict=True)):
        n_hits, n = int(hits.sum()), len(hits)
        low, high = wilson_interval(n_hits, n)
        yield (
            f"  {name(number)} {n_hits / n:.4f} ({n_hits} right), 95% interval {low:.4f} to "
            f"{high:.4f}: {path}"
        )
    n_left = split.n_videos - len(split.videos)
    if n_left:
        yield f"  {n_left} videos are not common to all runs, and left out:"
        for number, videos in enumerate(split.lacking):
            if videos:
                yield f"    {name(number)} has no result of {len(videos)}: {some(videos)}"


def _over_splits(splits: Sequence[Split], level: float) -> Iterator[str]:
    accuracies = np.array([split.accuracies for split in splits])  # (splits, runs)
    yield f"mean over {len(splits)} splits, standard deviation between them, least and most"
    for number, column in enumerate(accuracies.T):
        yield f"  {name(number)} {_spread(column, '.4f')}"
    for number in range(1, accuracies.shape[1]):
        difference = accuracies[:, number] - accuracies[:, 0]
        yield f"  {name(number)} - {name(0)} {_spread(difference, '+.4f')}"
    hits = together(splits)
    if accuracies.shape[1] > 1 and hits is None:
        yield "  no test over all splits: they share videos, which would count twice"
    elif hits is not None:
        yield from (f"  {verdict(pair, level)}" for pair in pairs_of(hits))


def _spread(values: np.ndarray, form: str) -> str:
    low, high = format(values.min(), form), format(values.max(), form)
    return f"{mean(values.tolist()):{form}} ± {stdev(values.tolist()):.4f} ({low} to {high})"


def _classes(
    rows: Sequence[tuple[str, int, float, float]], b: int, n_classes: int
) -> Iterator[str]:
    differing = [row for row in rows if row[2] != row[3]]
    if not differing:
        yield f"classes: {name(0)} and {name(b)} are equally good at each"
        return
    shown = differing[:n_classes]
    yield (
        f"classes that {name(0)} and {name(b)} differ most in, {len(shown)} of {len(differing)} "
        f"of {len(rows)} (some by chance alone)"
    )
    for label, n, of_a, of_b in shown:
        yield (
            f"  {of_b - of_a:+.3f}  {shown_name(label)}: "
            f"{name(0)} {of_a:.3f}, {name(b)} {of_b:.3f} of {n} videos"
        )


def as_plain(splits: Sequence[Split]) -> dict[str, Any]:
    """All of it as JSON values."""
    accuracies = np.array([split.accuracies for split in splits])
    hits = together(splits)
    n_runs = accuracies.shape[1]
    return {
        "runs": [name(number) for number in range(n_runs)],
        "splits": [_plain_split(split) for split in splits],
        "means": [mean(column.tolist()) for column in accuracies.T],
        "deviations": [
            stdev(column.tolist()) if len(splits) > 1 else None for column in accuracies.T
        ],
        "pairs": None if hits is None else [_plain_pair(pair) for pair in pairs_of(hits)],
        "classes": {
            name(b): [
                {"label": label, "videos": n, name(0): of_a, name(b): of_b}
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
        "pairs": [_plain_pair(pair) for pair in pairs_of(split.hits)],
    }


def _plain_pair(pair: Pair) -> dict[str, Any]:
    only = {"only_a": pair.only_a, "only_b": pair.only_b}
    return {"a": name(pair.a), "b": name(pair.b), **only, "p": pair.p}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="util_scripts.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", type=INPUT, help="index JSON with the labels")
    parser.add_argument(
        "results",
        type=INPUT,
        nargs="+",
        metavar="result",
        help="{subset}.json of main.py --inference, one per run",
    )
    parser.add_argument(
        "--split",
        type=INPUT,
        nargs="+",
        action="append",
        default=[],
        metavar=("INDEX", "RESULT"),
        help="another split's index and the results on it, of the same runs in the same order",
    )
    parser.add_argument("--subset", default="validation", choices=tuple(SUBSETS))
    parser.add_argument("--classes", type=int, default=10, help="classes listed per pair (10)")
    parser.add_argument(
        "--json", type=OutputPath(COMPARISON), help="all figures are also written there"
    )
    options = parser.parse_args(argv)
    splits = _splits(options)
    print("\n".join(describe(splits, subset=options.subset, n_classes=max(0, options.classes))))
    if options.json is not None:
        write_json(options.json, as_plain(splits))
    return 0


def _splits(options: argparse.Namespace) -> list[Split]:
    n_runs = len(options.results)
    if n_runs > len(string.ascii_uppercase):
        raise UserError(f"{n_runs} results: at most {len(string.ascii_uppercase)} are compared")
    for index, *results in options.split:
        if len(results) != n_runs:
            raise UserError(
                f"--split {index}: {len(results)} results; {options.index} has {n_runs}"
            )
    groups = [[options.index, *options.results], *options.split]
    return [read_split(index, results, options.subset) for index, *results in groups]


if __name__ == "__main__":
    sys.exit(run(main))
