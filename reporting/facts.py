"""Read a results folder once, into plain columns that charts and tables are made of."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.activitynet import read_any_index
from datasets.index import UNLABELLED, Index
from engine.provenance import Provenance, read_provenance
from errors import UserError
from evaluation.metrics import confusion_matrix
from evaluation.results import Accuracy, Entries, accuracy_of, averaged, labelled, read_results
from utils.reading import read_text

log = logging.getLogger(__name__)

REPORT_NAME = "report.html"  # in a results folder
LOGS = ("train", "val", "time")
UNKNOWN = -1  # class number of a label that is not in the index

Table = Mapping[str, np.ndarray]  # columns of a log, (epochs,) each


@dataclass(frozen=True)
class Videos:
    """Videos with a prediction, in index order, as columns of length N."""

    ids: tuple[str, ...]
    targets: np.ndarray  # class numbers or UNLABELLED
    predictions: np.ndarray  # class numbers or UNKNOWN
    scores: np.ndarray  # of the predictions
    rankings: tuple[list[tuple[str, float]], ...]  # saved labels with scores, best first

    @property
    def is_labelled(self) -> np.ndarray:
        return self.targets != UNLABELLED

    @property
    def hits(self) -> np.ndarray:
        return (self.targets == self.predictions) & self.is_labelled

    @property
    def margins(self) -> np.ndarray:
        """Difference of the two best scores; if only one was saved, to the rest of the total."""
        seconds = [r[1][1] if len(r) > 1 else 1 - r[0][1] for r in self.rankings]
        return self.scores - np.array(seconds, np.float64)

    def score_of(self, label: str) -> np.ndarray:
        """Return the (N,) scores of one class; NaN where it was not saved."""
        return np.array([dict(ranking).get(label, math.nan) for ranking in self.rankings])


@dataclass(frozen=True)
class Facts:
    """Everything a report shows except pictures of videos.

    None means unknown; `reasons` says why, under the keys "accuracy" and "logs".
    """

    folder: Path
    subset: str
    provenance: Provenance
    logs: Mapping[str, Table]
    labels: tuple[str, ...]
    results: Mapping[str, Entries]
    videos: Videos
    index: Index | None
    accuracy: Accuracy | None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def confusion(self) -> np.ndarray:
        """Return the (K, K) confusion matrix, without predictions that are UNKNOWN."""
        known = self.videos.is_labelled & (self.videos.predictions != UNKNOWN)
        return confusion_matrix(
            self.videos.targets[known], self.videos.predictions[known], len(self.labels)
        )


def read_facts(folder: Path, subset: str, *, index_path: Path | None = None) -> Facts:
    """Read the results of one subset and the logs and provenance next to them.

    The index is the one that the run used, unless another path is given. Raises UserError if there
    is no result file, or if the index at `index_path` can't be used.
    """
    path = folder / f"{subset}.json"
    results = read_results(path)
    provenance = read_provenance(path)
    reasons: dict[str, str] = {}
    index = _index(index_path, provenance, reasons)
    return facts_of(folder, subset, results, index, provenance, reasons)


def facts_of(
    folder: Path,
    subset: str,
    results: Mapping[str, Entries],
    index: Index | None,
    provenance: Provenance,
    reasons: Mapping[str, str] | None = None,
) -> Facts:
    """Like read_facts, for results and an index that have been read already."""
    reasons = dict(reasons or {})
    accuracy = None
    targets: Mapping[str, int] = {}
    if index is not None:
        targets = labelled(index, subset)
        try:
            accuracy = accuracy_of(index, results, subset)
        except UserError as error:
            reasons["accuracy"] = str(error)
    logs = {name: table for name in LOGS if (table := read_log(folder / f"{name}.log"))}
    if not logs:
        reasons["logs"] = f"there is no train.log, val.log or time.log in {folder}"
    labels = _all_labels(results) if index is None else index.labels
    return Facts(
        folder=folder,
        subset=subset,
        provenance=provenance,
        logs=logs,
        labels=labels,
        results=results,
        videos=_columns(results, targets, labels),
        index=index,
        accuracy=accuracy,
        reasons=reasons,
    )


def _index(path: Path | None, provenance: Provenance, reasons: dict[str, str]) -> Index | None:
    if path is not None:
        return read_any_index(path)
    used = provenance.options.get("annotation_path")
    if used is None:
        reasons["accuracy"] = "the index of the run is unknown; give it with --index"
        return None
    try:
        return read_any_index(Path(used))
    except UserError as error:
        reasons["accuracy"] = f"{error} (or give the index with --index)"
        return None


def _all_labels(results: Mapping[str, Entries]) -> tuple[str, ...]:
    labels = {label for entries in results.values() for label, _ in averaged(entries)}
    return tuple(sorted(labels))


def _columns(
    results: Mapping[str, Entries], targets: Mapping[str, int], labels: Sequence[str]
) -> Videos:
    """Put labelled videos first, in index order, then the others."""
    order = [*(v for v in targets if v in results), *(v for v in results if v not in targets)]
    rankings = {video: averaged(results[video]) for video in order}
    ids = [video for video in order if rankings[video]]
    numbers = {label: number for number, label in enumerate(labels)}
    return Videos(
        ids=tuple(ids),
        targets=np.array([targets.get(video, UNLABELLED) for video in ids], np.int64),
        predictions=np.array([numbers.get(rankings[v][0][0], UNKNOWN) for v in ids], np.int64),
        scores=np.array([rankings[video][0][1] for video in ids], np.float64),
        rankings=tuple(rankings[video] for video in ids),
    )


def read_log(path: Path) -> Table | None:
    """Read a tab-separated log as columns, with the last row of each epoch. None without rows.

    What is not a number becomes NaN: rows may be cut short, or older than a column.
    """
    if not path.exists():
        return None
    try:
        lines = read_text(path, "log", errors="replace").splitlines()
    except UserError as error:
        log.warning("%s; the report omits this log", error)
        return None
    names = lines[0].split("\t") if lines else []
    if len(set(names)) < len(names):
        log.warning("%s: duplicate column; the report omits this log", path)
        return None
    rows: dict[float, list[float]] = {}
    for line in lines[1:]:
        values = [_number(text) for text in line.split("\t")]
        if values and not math.isnan(values[0]):
            rows[values[0]] = [*values, *[math.nan] * len(names)][: len(names)]
    if not rows or names[0] != "epoch":
        return None
    columns = np.array([rows[epoch] for epoch in sorted(rows)]).T
    return dict(zip(names, columns, strict=True))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
