"""What an index alone tells of mistakes that make accuracy quietly wrong, without a look at frames:
seconds for half a million videos."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from datasets.annotation import UNLABELLED, Index
from datasets.compact import SUBSET_NAMES, Entry

UCF_GROUP = re.compile(r"^(v_.+_g\d+)_c\d+$")
IMBALANCE = 10  # times as many training videos as another label has
NAMED = 10  # findings of one kind that are named before "and N more"

NO_TRAINING = "labels without training videos"
NO_VALIDATION = "labels without validation videos"
ALIKE = "labels that differ in case, spaces or underscores only"
SAME_NAME = "videos of one name on both sides"
SAME_GROUP = "sources (UCF-101's groups) on both sides"
UNEVEN = f"labels with less than a {IMBALANCE}th of the training videos of the largest"


class Finding(NamedTuple):
    kind: str
    text: str


def check_index(index: Index) -> Iterator[Finding]:
    """Labels that lack a side, look alike or have few videos; videos on both sides."""
    yield from check_labels(index)
    yield from on_both_sides(SAME_NAME, index, _name)
    yield from on_both_sides(SAME_GROUP, index, _group)


def check_labels(index: Index) -> Iterator[Finding]:
    sides = {
        subset: Counter(entry.label for entry in index.entries.of_subset(subset))
        for subset in ("training", "validation")
    }
    for counts in sides.values():
        del counts[UNLABELLED]
    largest = max(sides["training"].values(), default=0)
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for number, label in enumerate(index.labels):
        alike[re.sub(r"[\s_]+", "", label).casefold()].append(label)
        n_train, n_val = sides["training"][number], sides["validation"][number]
        if sides["training"] and not n_train:
            yield Finding(NO_TRAINING, label)
        elif n_train * IMBALANCE < largest:
            yield Finding(UNEVEN, f"{label}: {n_train} of {largest}")
        if sides["validation"] and not n_val:
            yield Finding(NO_VALIDATION, label)
    for labels in alike.values():
        if len(labels) > 1:
            yield Finding(ALIKE, ", ".join(labels))


def on_both_sides(
    kind: str, index: Index, key_of: Callable[[Entry], str | None]
) -> Iterator[Finding]:
    """Keys that a training video shares with a video of another subset, once each. Holds the keys
    of the other, smaller side in memory."""
    others: dict[str, str] = {}
    for subset in SUBSET_NAMES[1:]:
        for entry in index.entries.of_subset(subset):
            if (key := key_of(entry)) is not None:
                others.setdefault(key, entry.video_id)
    for entry in index.entries.of_subset("training") if others else ():
        if (key := key_of(entry)) is not None and (twin := others.pop(key, None)) is not None:
            yield Finding(kind, f"{entry.video_id} (training) and {twin}")


def _name(entry: Entry) -> str:
    return entry.video_id.rpartition("/")[2]


def _group(entry: Entry) -> str | None:
    match = UCF_GROUP.match(_name(entry))
    return match and match[1]


def by_kind(findings: Iterator[Finding]) -> dict[str, list[str]]:
    """Findings gathered by what they are, for a report."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for kind, text in findings:
        kinds[kind].append(text)
    return kinds


def first_few(texts: list[str]) -> list[str]:
    """The lines of a report that name the first of them."""
    more = [f"and {len(texts) - NAMED} more"] if len(texts) > NAMED else []
    return [*texts[:NAMED], *more]
