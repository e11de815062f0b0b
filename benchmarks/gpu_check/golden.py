"""Whole command lines on the device, against what the original wrote for them on a CPU."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import Setting, run_main
from benchmarks.gpu_check.tables import Row
from tests.runs import GOLDEN, golden_arguments, read_table

# By kind of file. Training amplifies the order in which threads sum: with one thread instead of the
# original's two, sums of weights differ by 2e-3 and losses by 2e-4.
LIMITS = {".log": 1e-3, ".json": 1e-3, ".pth": 1e-2}
FOLDERS = ("training", "motion")


def rows(setting: Setting, record: Record) -> Iterator[Row]:
    for folder, name, case in cases(only_first=setting.on_cpu):
        work = setting.work / "golden" / name
        for file, difference in differences(case, folder, work, on_cpu=setting.on_cpu):
            yield {
                "run": name,
                "file": file,
                "largest difference": difference,
                "limit": limit_of(file),
                "passed": difference <= limit_of(file),
            }


def cases(*, only_first: bool = False) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Yield the folder, name and content of each golden case, or of the last of each folder."""
    for folder in (GOLDEN / name for name in FOLDERS):
        content = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        names = list(content)[-1:] if only_first else list(content)
        yield from ((folder, name, content[name]) for name in names)


def limit_of(file: str) -> float:
    """Return the largest difference that passes."""
    return LIMITS[Path(file).suffix]


def differences(
    case: Mapping[str, Any], folder: Path, work: Path, *, on_cpu: bool
) -> Iterator[tuple[str, float]]:
    """Run a case; yield each file that it should write, and the largest difference.

    It is relative for losses and accuracies, absolute for scores, and |a - b| / (1 + |b|) for the
    sums of tensors.
    """
    work.mkdir(parents=True)
    words = golden_arguments(case, folder, work)
    if not on_cpu:
        words.remove("--no_cuda")
    run_main(words)
    for name, expected in case.items():
        path = work / "res" / name
        if name.endswith(".json"):
            yield name, _of_scores(json.loads(path.read_text(encoding="utf-8")), expected)
        elif name.endswith(".log"):
            yield name, _of_logs(path.read_text(encoding="utf-8"), expected)
        elif name.endswith(".pth"):
            saved = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
            pairs = [(saved[tensor].sum().item(), total) for tensor, total in expected.items()]
            yield name, _largest(abs(a - b) / (1 + abs(b)) for a, b in pairs)


def _of_logs(ours: str, expected: str) -> float:
    pairs = zip(read_table(ours), read_table(expected), strict=True)
    return _largest(abs(a[key] - b[key]) / max(abs(b[key]), 1e-9) for a, b in pairs for key in b)


def _of_scores(ours: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    found = [
        abs(a - b)
        for video, entries in expected["results"].items()
        for one, other in zip(ours["results"][video], entries, strict=True)
        for a, b in _scores(one, other)
    ]
    return _largest(found)


def _largest(values: Iterable[float]) -> float:
    """Return the largest value; infinity if any is NaN, which max() may pass over."""
    listed = list(values)
    return max(listed) if all(map(math.isfinite, listed)) else math.inf


def _scores(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield pairs of scores of the same label, of an entry or of those of a segment."""
    if "result" in other:
        for a, b in zip(one["result"], other["result"], strict=True):
            yield from _scores(a, b)
    else:
        yield one["score"] if one["label"] == other["label"] else float("inf"), other["score"]
