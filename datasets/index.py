"""The index file: which videos there are, their labels, and where their frames lie.

{"labels": ["A", "B"],
 "database": {"ID": {"subset": "training",
                     "annotations": {"label": "A", "segment": [first, last + 1]},
                     "video_path": "optional, overrides FRAMES_DIR/A/ID"}}}
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from datasets.records import CompactEntries, Entry
from errors import UserError
from utils.reading import bad_name, decode_text, parse_json, read_bytes, shown, shown_name, typed

SUBSETS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
}
UNLABELLED = -1
ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")  # may spell a key in another way
FrameNumber = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


@dataclass(frozen=True)
class Index:
    """A checked index file; entries are in the file's order."""

    path: Path
    labels: tuple[str, ...]
    entries: CompactEntries


OtherFormat = Callable[[Path, dict[str, Any]], Index]


def canonical_subset(name: str) -> str:
    """Map 'val' to 'validation', and so on. Raises UserError for an unknown subset."""
    if name not in SUBSETS:
        raise UserError(f"subset {name!r}: choose from {', '.join(SUBSETS)}")
    return SUBSETS[name]


class _Annotation(msgspec.Struct, gc=False):
    label: str | None = None
    segment: tuple[FrameNumber, FrameNumber] | None = None


class _Video(msgspec.Struct, gc=False):
    """One video's entry in the database; unknown keys are ignored."""

    subset: str
    annotations: _Annotation = msgspec.field(default_factory=_Annotation)
    video_path: str | None = None


class _File(msgspec.Struct):
    labels: list[str]
    database: dict[str, _Video]


_DECODER = msgspec.json.Decoder(_File)


def read_index(path: Path, *, other_format: OtherFormat | None = None) -> Index:
    """Read and check an index. Raises UserError that names the entry at fault.

    An index with a "taxonomy" is passed to `other_format`, or rejected if that is None.
    """
    raw = read_bytes(path, "index")
    content = _decode_fast(raw)
    if content is not None:
        return _checked(path, content.labels, content.database)
    plain = parse_json(decode_text(raw, path, "index"), path, "index")
    if other_format is not None and isinstance(plain, dict) and "taxonomy" in plain:
        return other_format(path, plain)
    return parse_index(path, plain)


def _decode_fast(raw: bytes) -> _File | None:
    """Decode with msgspec, in a third of the time and half of the memory of `json`.

    Returns None where the strict `json` reader has to decide: invalid content, names that are not
    UTF-8 (msgspec rejects them), and possibly duplicate keys (msgspec keeps the last).
    """
    try:
        content = _DECODER.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    n_videos = len(content.database)
    limits = dict.fromkeys((*_Video.__struct_fields__, *_Annotation.__struct_fields__), n_videos)
    limits |= dict.fromkeys(_File.__struct_fields__, 1)
    # A duplicate video brings a second "subset". A label called "subset" is a false alarm.
    may_repeat = any(raw.count(f'"{key}"'.encode()) > limit for key, limit in limits.items())
    return None if may_repeat or ESCAPED_ASCII.search(raw) else content


def parse_index(path: Path, content: Any) -> Index:
    """Check the content of an index. Raises UserError."""
    if isinstance(content, dict) and "taxonomy" in content:
        raise UserError(f"{path}: this index is in ActivityNet's format; add --dataset activitynet")
    for key, kind, what in (("labels", list, "list"), ("database", dict, "object")):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise UserError(f"{path}: not an index: it has no {what} {key!r}")
    labels = typed(content["labels"], list[str], f"{path}: labels")
    database = content["database"].items()
    return _checked(path, labels, {name: _video(path, name, entry) for name, entry in database})


def _video(path: Path, video_id: str, entry: Any) -> _Video:
    if isinstance(entry, dict) and isinstance(entry.get("annotations"), list):
        raise _error(path, video_id, "'annotations' is a list, as in ActivityNet's format")
    return typed(entry, _Video, f"{path}: {shown_name(video_id)}")


def _checked(path: Path, labels: Sequence[str], videos: Mapping[str, _Video]) -> Index:
    check_labels(path, labels)
    numbers = {label: number for number, label in enumerate(labels)}
    entries = (_entry(path, video_id, video, numbers) for video_id, video in videos.items())
    return Index(path, tuple(labels), CompactEntries(entries))


def check_labels(path: Path, labels: Sequence[str]) -> None:
    """Raise UserError for no labels, duplicates, and labels that cannot be folder names."""
    if not labels:
        raise UserError(f"{path}: the list 'labels' is empty")
    if len(set(labels)) < len(labels):
        twice = next(label for label, count in Counter(labels).items() if count > 1)
        raise UserError(f"{path}: label {shown(twice)} occurs twice in 'labels'")
    for label in labels:
        if (fault := bad_name(label)) is not None:
            raise UserError(f"{path}: label {shown(label)} {fault}")


def _entry(path: Path, video_id: str, video: _Video, numbers: Mapping[str, int]) -> Entry:
    subset, annotation = SUBSETS.get(video.subset, ""), video.annotations
    label, segment = annotation.label, annotation.segment
    fault = bad_name(video_id)
    if not subset:
        fault = f"subset {shown(video.subset)} is not training, validation or testing"
    elif label is None and subset != "testing":
        fault = "no label; only test videos may have none"
    elif label is not None and label not in numbers:
        fault = f"label {shown(label)} is not among the index's {len(numbers)} labels"
    elif segment is not None and segment[0] > segment[1]:
        fault = f"segment {list(segment)} is not [first frame, last frame + 1]"
    elif video.video_path is not None and (problem := bad_name(video.video_path, is_path=True)):
        fault = f"video_path {shown(video.video_path)} {problem}"
    if fault is not None:
        raise _error(path, video_id, fault)
    number = UNLABELLED if label is None else numbers[label]
    return Entry(video_id, subset, number, segment, video.video_path)


def _error(path: Path, video_id: str, fault: str) -> UserError:
    return UserError(f"{path}: {shown_name(video_id)}: {fault}")
