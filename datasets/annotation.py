"""The index: which videos there are, what they show, where their frames lie.

{"labels": ["A", "B"],
 "database": {"ID": {"subset": "training",
                     "annotations": {"label": "A", "segment": [first, last + 1]},
                     "video_path": "optional, overrides FRAMES_DIR/A/ID"}}}
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from errors import UserError

SUBSETS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
}
UNLABELLED = -1
UNLABELLED_FOLDER = "test"  # where unlabelled test videos lie under FRAMES_DIR
FRAME_NAME = re.compile(r"image_(\d{5,})\.jpg", re.ASCII)
TRIED = 3  # omitted videos that an error names


class VideoRecord(NamedTuple):
    """A video whose frames are there: numbers `first` to `last`, both included."""

    video_id: str
    path: Path
    first: int
    last: int
    label: int

    @property
    def n_frames(self) -> int:
        return self.last - self.first + 1


class CompactRecords(Sequence[VideoRecord]):
    """Records in three arrays. Half a million Python objects would be copied into every loader
    worker as their reference counts change; arrays stay shared."""

    def __init__(self, records: Iterable[VideoRecord]) -> None:
        text, ends, numbers = bytearray(), [0], []
        for record in records:
            text += f"{record.video_id}\0{record.path}".encode("utf-8", "surrogatepass")
            ends.append(len(text))
            numbers.append((record.first, record.last, record.label))
        self._text = np.frombuffer(bytes(text), np.uint8)
        self._ends = np.array(ends, np.int64)  # (N + 1,)
        self._numbers = np.array(numbers, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, which: int) -> VideoRecord: ...
    @overload
    def __getitem__(self, which: slice) -> list[VideoRecord]: ...
    def __getitem__(self, which: int | slice) -> VideoRecord | list[VideoRecord]:
        if isinstance(which, slice):
            return [self[i] for i in range(len(self))[which]]
        i = range(len(self))[which]  # negative numbers and IndexError, as a list has them
        text = self._text[self._ends[i] : self._ends[i + 1]].tobytes()
        video_id, path = text.decode("utf-8", "surrogatepass").split("\0")
        first, last, label = self._numbers[i].tolist()
        return VideoRecord(video_id, Path(path), first, last, label)


class Entry(NamedTuple):
    """One video of an index. `segment` is None where it says that no frames were found."""

    video_id: str
    subset: str
    label: int
    segment: tuple[int, int] | None
    video_path: str | None


@dataclass(frozen=True)
class Index:
    """A checked index file; entries are in the file's order."""

    path: Path
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]


class Selection(NamedTuple):
    """The usable videos of a subset, and the others as (video id, reason)."""

    records: Sequence[VideoRecord]
    omitted: list[tuple[str, str]]


def canonical_subset(name: str) -> str:
    """'val' -> 'validation', and so on. Raises UserError for what is no subset."""
    if name not in SUBSETS:
        raise UserError(f"subset {name!r}: it is one of {', '.join(SUBSETS)}")
    return SUBSETS[name]


def read_index(path: Path) -> Index:
    """Read and check an index. Raises UserError with the entry that is wrong."""
    return parse_index(path, read_json(path, "index"))


def parse_index(path: Path, content: Any) -> Index:
    """Check the content of an index. Raises UserError."""
    if isinstance(content, dict) and "taxonomy" in content:
        raise UserError(f"{path}: an index in ActivityNet's form: pass --dataset activitynet")
    for key, kind, what in (("labels", list, "list"), ("database", dict, "object")):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise UserError(f"{path}: no index: it has no {what} {key!r}")
    labels = content["labels"]
    if not labels or not all(isinstance(label, str) for label in labels):
        raise UserError(f"{path}: 'labels' must be a list of names")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"{path}: label {twice!r} stands twice in 'labels'")
    numbers = {label: number for number, label in enumerate(labels)}
    entries = tuple(
        _read_entry(path, video_id, entry, numbers)
        for video_id, entry in content["database"].items()
    )
    return Index(path, tuple(labels), entries)


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file. Raises UserError that calls the file `what`."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}") from None
    except OSError as error:
        raise UserError(f"{path}: the {what} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: the {what} is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: the {what} is not JSON: line {error.lineno}: {error.msg}"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: the {what} is nested too deeply") from None


def _read_entry(path: Path, video_id: str, entry: Any, numbers: Mapping[str, int]) -> Entry:
    def wrong(complaint: str) -> UserError:
        return UserError(f"{path}: {video_id}: {complaint}")

    if not isinstance(entry, dict):
        raise wrong("the entry is no object")
    subset = SUBSETS.get(str(entry.get("subset")))
    if subset is None:
        raise wrong(f"subset {entry.get('subset')!r} is not training, validation or testing")
    annotation = entry.get("annotations", {})
    if not isinstance(annotation, dict):
        raise wrong("'annotations' is no object (a list is ActivityNet's form)")
    label = annotation.get("label")
    if label is None and subset != "testing":
        raise wrong("no label, which only test videos may lack")
    if label is not None and (not isinstance(label, str) or label not in numbers):
        raise wrong(f"label {label!r} is not among the index's {len(numbers)} labels")
    video_path = entry.get("video_path")
    if video_path is not None and not isinstance(video_path, str):
        raise wrong(f"'video_path' {video_path!r} is no text")
    segment = annotation.get("segment")
    if segment is not None and not _is_segment(segment):
        raise wrong(f"segment {segment!r} is not [first frame, last frame + 1]")
    number = UNLABELLED if label is None else numbers[label]
    return Entry(video_id, subset, number, None if segment is None else tuple(segment), video_path)


def _is_segment(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(number) is int for number in value)
        and 0 <= value[0] <= value[1] < 2**31
    )


def select_videos(index: Index, subset: str, frames_dir: Path, *, suffix: str = "") -> Selection:
    """The videos of a subset whose frames are there, in the index's order.

    A video is a folder, or with a `suffix` a file whose name ends in it. It costs one folder
    opened, and no look at its frames. Raises UserError if `frames_dir` is missing or not one video
    of the subset can be used.
    """
    subset = canonical_subset(subset)
    if not frames_dir.is_dir():
        raise UserError(f"{frames_dir}: no such folder of frames")
    records: list[VideoRecord] = []
    omitted: list[tuple[str, str]] = []
    for entry in index.entries:
        if entry.subset != subset:
            continue
        path = frames_path(index, entry, frames_dir, suffix)
        reason = _why_unusable(entry, path, is_file=bool(suffix))
        if reason is None:
            assert entry.segment is not None
            first, end = entry.segment
            records.append(VideoRecord(entry.video_id, path, first, end - 1, entry.label))
        else:
            omitted.append((entry.video_id, reason))
    refuse_empty(index.path, subset, records, omitted)
    return Selection(CompactRecords(records), omitted)


def refuse_empty(
    path: Path, subset: str, records: Sequence[VideoRecord], omitted: Sequence[tuple[str, str]]
) -> None:
    """Raises UserError where not one video of a subset is left."""
    if records:
        return
    if not omitted:
        raise UserError(f"{path}: has no {subset} videos")
    tried = "; ".join(f"{video_id}: {reason}" for video_id, reason in omitted[:TRIED])
    raise UserError(f"{path}: none of its {len(omitted)} {subset} videos can be used: {tried}")


def frames_path(index: Index, entry: Entry, frames_dir: Path, suffix: str = "") -> Path:
    """Where a video's frames lie, or would: a folder, or with a `suffix` a file."""
    if entry.video_path is None:
        unlabelled = entry.label == UNLABELLED
        folder = UNLABELLED_FOLDER if unlabelled else index.labels[entry.label]
        return frames_dir / folder / f"{entry.video_id}{suffix}"
    name = entry.video_path if entry.video_path.endswith(suffix) else entry.video_path + suffix
    path = frames_dir / name  # an absolute path stays as it is
    from_here = Path(name)
    return from_here if not os.path.exists(path) and os.path.exists(from_here) else path


def _why_unusable(entry: Entry, path: Path, *, is_file: bool) -> str | None:
    if entry.segment is None or entry.segment[0] == entry.segment[1]:
        return "the index counts no frames"
    try:
        if is_file:
            return None if path.is_file() else f"no file {path}"
        with os.scandir(path) as items:
            return None if next(items, None) else f"no frames in {path}"
    except (FileNotFoundError, NotADirectoryError):
        return f"no folder {path}"
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        return f"{path} can't be read: {error}"


class FrameCount(NamedTuple):
    """How many frames there are from number 1 on; `missing` is the first gap's number."""

    n_frames: int
    missing: int | None


def count_frames(names: Iterable[str]) -> FrameCount:
    """Count image_00001.jpg … among a folder's file names; frames after a gap do not count."""
    numbers = {name: int(match[1]) for name in names if (match := FRAME_NAME.fullmatch(name))}
    n_frames = 0
    while f"image_{n_frames + 1:05d}.jpg" in numbers:
        n_frames += 1
    is_whole = max(numbers.values(), default=0) <= n_frames
    return FrameCount(n_frames, None if is_whole else n_frames + 1)


def entry_of(
    subset: str,
    label: str | None,
    n_frames: int | None,
    *,
    video_path: str | None = None,
    first: int = 1,
) -> dict[str, Any]:
    """One value of an index's database: a video of `n_frames` frames from number `first` on.

    Without frames, None, there is no segment.
    """
    annotation: dict[str, Any] = {} if label is None else {"label": label}
    if n_frames is not None:
        annotation["segment"] = [first, first + n_frames]
    entry: dict[str, Any] = {"subset": subset, "annotations": annotation}
    return entry if video_path is None else entry | {"video_path": video_path}


def write_index(path: Path, labels: Iterable[str], entries: Mapping[str, Any]) -> None:
    """Write an index, whole or not at all. Raises UserError where it can't be written."""
    write_json(path, {"labels": list(labels), "database": dict(entries)})


def write_json(path: Path, content: Any) -> None:
    """Write JSON beside `path` and rename it there, making its folder. Raises UserError."""
    text = json.dumps(content)  # ASCII, so that names that are not valid UTF-8 survive
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None
