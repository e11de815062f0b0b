"""Find mistakes that silently spoil accuracy from the index alone, without looking at frames: takes
seconds for half a million videos."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from datasets.index import UNLABELLED, Index
from datasets.records import SUBSET_NAMES, Entry

UCF_GROUP = re.compile(r"^(v_.+_g\d+)_c\d+$")
# Names of parts of a recording: times, as in 1a2B3c_000010_000020, or numbers, as in match3_clip07,
# match3 part 7, match3clip7, match3_7. Group 1 is the recording.
PART = r"(?i:clip|part|segment|seg|scene|shot|cut|chunk|take)"
TIMES = r"(.+)[_-](?:\d{4,}|\d+\.\d+)[_-](?:\d{4,}|\d+\.\d+)$"
YOUTUBE_TIMES = r"([\w-]{11})[_-]\d+[_-]\d+$"
PART_WORD = rf"(.+?)[\s_.-]*(?<![A-Za-z]){PART}[\s_.-]*\(?\d+\)?$"
PART_NUMBER = r"(.+)[\s_.-]+[A-Za-z]*\(?\d+\)?$"
# Names that identify no recording: 001, clip_01, video (3), and the prefixes that cameras use.
GENERIC_NAME = re.compile(rf"(?:{PART}|(?i:video|vid|movie|mov|mvi|img|dsc|file))?[\W_]*\d*\W*")
# From this share of a label's videos on, a stem is taken for a numbering of videos …
NUMBERING = 0.9
RARE = 0.1  # … and up to this share, a stem without digits for the name of a recording.
MAX_PARTS = 30  # parts of a recording that is a label's only one
IMBALANCE = 10  # ratio of training videos between two labels that is worth a note

NO_TRAINING = "labels without training videos"
NO_VALIDATION = "labels without validation videos"
ALIKE = "labels that differ only in case, spaces, underscores or the Unicode form of accents"
SAME_NAME = "videos of the same name in training and another subset"
SAME_GROUP = "groups (UCF-101's sources) in training and another subset"
SAME_RECORDING = {
    pattern: "recordings in training and another subset, judging by the names; if so, accuracy is "
    f"too optimistic: split again with folder_json --group_by '{pattern}'"
    for pattern in (TIMES, YOUTUBE_TIMES, PART_WORD, PART_NUMBER)
}
UNEVEN = f"labels with less than 1/{IMBALANCE} of the training videos of the largest label"

K = TypeVar("K")


class Finding(NamedTuple):
    kind: str
    text: str


def check_index(index: Index) -> Iterator[Finding]:
    """Check the labels, and look for videos that are in training and another subset."""
    yield from check_labels(index)
    yield from check_sides(index)


def check_sides(index: Index) -> Iterator[Finding]:
    """Find training videos that are, or whose recording is, also in another subset."""
    yield from on_both_sides(SAME_NAME, index, _name)
    yield from on_both_sides(SAME_GROUP, index, _group)
    yield from same_recordings(index)


def check_labels(index: Index) -> Iterator[Finding]:
    """Find labels that lack videos, have few, or look alike."""
    sides = {
        subset: Counter(entry.label for entry in index.entries.of_subset(subset))
        for subset in ("training", "validation")
    }
    for counts in sides.values():
        del counts[UNLABELLED]
    largest = max(sides["training"].values(), default=0)
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for number, label in enumerate(index.labels):
        plain = unicodedata.normalize("NFC", label)
        alike[re.sub(r"[\s_]+", "", plain).casefold()].append(label)
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
    """Find keys that a training video shares with a video of another subset, once each."""
    for _, text in _on_both_sides(index, key_of):
        yield Finding(kind, text)


def _on_both_sides(index: Index, key_of: Callable[[Entry], K | None]) -> Iterator[tuple[K, str]]:
    """Yield each such key with the two videos. Holds only the keys of the smaller, other subsets
    in memory."""
    others: dict[K, str] = {}
    for subset in SUBSET_NAMES[1:]:
        for entry in index.entries.of_subset(subset):
            if (key := key_of(entry)) is not None:
                others.setdefault(key, entry.video_id)
    for entry in index.entries.of_subset("training") if others else ():
        if (key := key_of(entry)) is not None and (twin := others.pop(key, None)) is not None:
            yield key, f"{entry.video_id} (training) and {twin}"


def _base_name(entry: Entry) -> str:
    return entry.video_id.rpartition("/")[2]


def _name(entry: Entry) -> str | None:
    name = _base_name(entry)
    return None if GENERIC_NAME.fullmatch(name) else name


def _group(entry: Entry) -> str | None:
    return _group_of(_base_name(entry))


def _group_of(name: str) -> str | None:
    match = UCF_GROUP.match(name)
    return match and match[1]


class _Recording(NamedTuple):
    stem: str  # of the names of its parts
    pattern: str  # that found it


def _recording(entry: Entry) -> _Recording | None:
    return _recording_of(_base_name(entry))


def _recording_of(name: str) -> _Recording | None:
    if UCF_GROUP.match(name):
        return None
    for pattern in SAME_RECORDING:
        if match := re.match(pattern, name):
            stem = match[1]
            return None if GENERIC_NAME.fullmatch(stem) else _Recording(stem, pattern)
    return None


def same_recordings(index: Index) -> Iterator[Finding]:
    """Find recordings of which, judging by the names, only some parts are in training."""
    shared = dict(_on_both_sides(index, _recording))
    totals: Counter[str] = Counter()
    counts: defaultdict[_Recording, Counter[str]] = defaultdict(Counter)
    for entry in index.entries if shared else ():
        label = "" if entry.label == UNLABELLED else index.labels[entry.label]
        totals[label] += 1
        recording = _recording(entry)
        if recording is not None and recording in shared:
            counts[recording][label] += 1
    for recording, text in shared.items():
        if _is_distinct(recording, counts[recording], totals):
            yield Finding(SAME_RECORDING[recording.pattern], text)


def guess_recordings(videos: Sequence[tuple[str, str]]) -> list[str]:
    """Guess the recording of each video, given by its name without suffix and its label, from the
    names alone; "" where they do not tell."""
    found = [_recording_of(name) for name, _ in videos]
    totals = Counter(label for _, label in videos)
    counts: defaultdict[_Recording, Counter[str]] = defaultdict(Counter)
    for recording, (_, label) in zip(found, videos, strict=True):
        if recording is not None:
            counts[recording][label] += 1
    distinct = {r for r, per_label in counts.items() if _is_distinct(r, per_label, totals)}
    return [
        _group_of(name) or (recording.stem if recording in distinct and recording else "")
        for recording, (name, _) in zip(found, videos, strict=True)
    ]


def _is_distinct(recording: _Recording, counts: Counter[str], totals: Counter[str]) -> bool:
    """Whether a stem names a recording, rather than a class or dataset that numbers its videos as
    in fi_001, fi_002 …; `counts` are its videos per label."""
    shares = [n / totals[label] for label, n in counts.items()]
    has_digits = re.search(r"\d", recording.stem) is not None
    if recording.pattern == PART_NUMBER and not has_digits:
        return max(shares) <= RARE
    if min(shares) < NUMBERING:
        return True
    is_label = recording.stem.casefold() in map(str.casefold, counts)
    is_few = counts.total() <= MAX_PARTS
    return recording.pattern != PART_NUMBER and has_digits and is_few and not is_label


def by_kind(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Group the findings by kind."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for kind, text in findings:
        kinds[kind].append(text)
    return kinds
