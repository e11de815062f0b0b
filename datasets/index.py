"""The index: which videos there are, what they show, where their frames lie.

{"labels": ["A", "B"],
 "database": {"ID": {"subset": "training",
                     "annotations": {"label": "A", "segment": [first, last + 1]},
                     "video_path": "optional, overrides FRAMES_DIR/A/ID"}}}
"""

import gc
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from datasets.compact import CompactEntries, CompactRecords, Entry, Row, VideoRecord
from datasets.hdf5 import HDF5_SUFFIX
from datasets.segments import UNCOUNTED, segment_fault
from errors import UserError
from utils.files import write_json
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
UNLABELLED_FOLDER = "test"  # where unlabelled test videos lie under FRAMES_DIR
ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")  # which may spell a key in another way
FrameNumber = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
log = logging.getLogger(__name__)

TRIED = 3  # omitted videos that an error names
# Larger indexes are checked by one listing per label: opening each folder would take a minute on a
# disk and an hour over a network. An empty folder then stops the run when it is read.
OPENED_EACH = 50_000


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection meanwhile: of a large index nothing is garbage, and looking costs as
    much time as reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True)
class Index:
    """A checked index file; entries are in the file's order."""

    path: Path
    labels: tuple[str, ...]
    entries: CompactEntries


OtherForm = Callable[[Path, dict[str, Any]], Index]


class Selection(NamedTuple):
    """The usable videos of a subset, and the others as (video id, reason)."""

    records: Sequence[VideoRecord]
    omitted: list[tuple[str, str]]


def canonical_subset(name: str) -> str:
    """'val' -> 'validation', and so on. Raises UserError for what is no subset."""
    if name not in SUBSETS:
        raise UserError(f"subset {name!r}: it is one of {', '.join(SUBSETS)}")
    return SUBSETS[name]


class _Annotation(msgspec.Struct, gc=False):
    label: str | None = None
    segment: tuple[FrameNumber, FrameNumber] | None = None


class _Video(msgspec.Struct, gc=False):
    """A value of an index's database; what other programs keep beside these is passed over."""

    subset: str
    annotations: _Annotation = msgspec.field(default_factory=_Annotation)
    video_path: str | None = None


class _File(msgspec.Struct):
    labels: list[str]
    database: dict[str, _Video]


_DECODER = msgspec.json.Decoder(_File)


def read_index(path: Path, *, other_form: OtherForm | None = None) -> Index:
    """Read and check an index. Raises UserError with the entry that is wrong.

    One with a "taxonomy" goes to `other_form`, or is an error without it.
    """
    raw = read_bytes(path, "index")
    content = _decode(raw)
    if content is not None:
        return _checked(path, content.labels, content.database)
    plain = parse_json(decode_text(raw, path, "index"), path, "index")
    if other_form is not None and isinstance(plain, dict) and "taxonomy" in plain:
        return other_form(path, plain)
    return parse_index(path, plain)


def _decode(raw: bytes) -> _File | None:
    """A large index in a third of the time and half of the memory that `json` takes, or None where
    the strict reader must look: at what is wrong, at names that are not UTF-8 (which msgspec
    refuses), and where a key may stand twice (of which msgspec keeps the last)."""
    try:
        content = _DECODER.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    n_videos = len(content.database)
    limits = {key: n_videos for key in (*_Video.__struct_fields__, *_Annotation.__struct_fields__)}
    limits |= {key: 1 for key in _File.__struct_fields__}
    # A video that stands twice has its "subset" twice, too; a label may be called "subset".
    is_doubtful = any(raw.count(f'"{key}"'.encode()) > limit for key, limit in limits.items())
    return None if is_doubtful or ESCAPED_ASCII.search(raw) else content


@without_collection()
def parse_index(path: Path, content: Any) -> Index:
    """Check the content of an index. Raises UserError."""
    if isinstance(content, dict) and "taxonomy" in content:
        raise UserError(f"{path}: an index in ActivityNet's form: pass --dataset activitynet")
    for key, kind, what in (("labels", list, "list"), ("database", dict, "object")):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise UserError(f"{path}: no index: it has no {what} {key!r}")
    labels = typed(content["labels"], list[str], f"{path}: labels")
    database = content["database"].items()
    return _checked(path, labels, {name: _video(path, name, entry) for name, entry in database})


def _video(path: Path, video_id: str, entry: Any) -> _Video:
    if isinstance(entry, dict) and isinstance(entry.get("annotations"), list):
        raise _wrong(path, video_id, "'annotations' is a list, which is ActivityNet's form")
    return typed(entry, _Video, f"{path}: {shown_name(video_id)}")


@without_collection()
def _checked(path: Path, labels: Sequence[str], videos: Mapping[str, _Video]) -> Index:
    check_labels(path, labels)
    numbers = {label: number for number, label in enumerate(labels)}
    entries = (_entry(path, video_id, video, numbers) for video_id, video in videos.items())
    return Index(path, tuple(labels), CompactEntries.of(entries))


def check_labels(path: Path, labels: Sequence[str]) -> None:
    """Raises UserError where labels are missing, stand twice or name no folder of frames."""
    if not labels:
        raise UserError(f"{path}: it has no labels")
    if len(set(labels)) < len(labels):
        twice = next(label for label, count in Counter(labels).items() if count > 1)
        raise UserError(f"{path}: label {shown(twice)} stands twice in 'labels'")
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
        fault = "no label, which only test videos may lack"
    elif label is not None and label not in numbers:
        fault = f"label {shown(label)} is not among the index's {len(numbers)} labels"
    elif segment is not None and segment[0] > segment[1]:
        fault = f"segment {list(segment)} is not [first frame, last frame + 1]"
    elif video.video_path is not None and (wrong := bad_name(video.video_path, is_path=True)):
        fault = f"video_path {shown(video.video_path)} {wrong}"
    if fault is not None:
        raise _wrong(path, video_id, fault)
    return Entry(
        video_id, subset, UNLABELLED if label is None else numbers[label], segment, video.video_path
    )


def _wrong(path: Path, video_id: str, fault: str) -> UserError:
    return UserError(f"{path}: {shown_name(video_id)}: {fault}")


@without_collection()
def select_videos(
    index: Index, subset: str, frames_dir: Path, *, file_type: str = "jpg"
) -> Selection:
    """The videos of a subset whose frames are there, in the index's order.

    Raises UserError if `frames_dir` is missing or not one video of the subset can be used.
    """
    subset = canonical_subset(subset)
    if not frames_dir.is_dir():
        raise UserError(f"{frames_dir}: no such folder of frames")
    shelf, frames = Shelf(file_type), str(frames_dir)
    _report_outside(index, subset, frames)
    look_inside = not shelf.is_files and len(index.entries) <= OPENED_EACH
    omitted: list[tuple[str, str]] = []

    def usable() -> Iterator[Row]:
        for entry in index.entries.of_subset(subset):
            path, is_there = locate(index, entry, frames, shelf)
            fault = segment_fault(entry.segment, file_type)
            if entry.segment is None or fault == UNCOUNTED:
                omitted.append((entry.video_id, UNCOUNTED))
                continue
            if fault is not None:
                how = f"check_dataset {index.path} {frames_dir} --file_type {file_type} --fix"
                raise UserError(
                    f"{index.path}: {shown_name(entry.video_id)}: {fault}; to correct all: "
                    f"python -m util_scripts.{how}"
                )
            reason = _why_unusable(path, look_inside) if is_there else _why_absent(path, shelf)
            if reason is None:
                first, end = entry.segment
                yield entry.video_id, path, (first, end - 1, entry.label)
            else:
                omitted.append((entry.video_id, reason))

    records = CompactRecords(usable())
    refuse_empty(index.path, subset, records, omitted)
    return Selection(records, omitted)


def _report_outside(index: Index, subset: str, frames: str) -> None:
    """Log once that a video_path leads out of the folder of frames, as the original allows."""
    inside = os.path.join(os.path.abspath(frames), "")
    outside = [
        entry.video_path
        for entry in index.entries.of_subset(subset)
        if entry.video_path is not None
        and not os.path.abspath(os.path.join(frames, entry.video_path)).startswith(inside)
    ]
    if outside:
        log.warning(
            "%s: %d %s videos are read from outside %s, where their video_path leads (the first: "
            "%s)", index.path, len(outside), subset, frames, shown_name(outside[0]),
        )  # fmt: skip


def refuse_empty(
    path: Path, subset: str, records: Sequence[VideoRecord], omitted: Sequence[tuple[str, str]]
) -> None:
    """Raises UserError where not one video of a subset is left."""
    if records:
        return
    if not omitted:
        hint = "; --no_val trains without" if subset == "validation" else ""
        raise UserError(f"{path}: has no {subset} videos{hint}")
    tried = "; ".join(f"{video_id}: {reason}" for video_id, reason in omitted[:TRIED])
    raise UserError(f"{path}: none of its {len(omitted)} {subset} videos can be used: {tried}")


class Shelf:
    """Where videos' frames are: a folder each, an HDF5 file each, or the video files themselves,
    whatever their suffix. Each parent folder is listed once."""

    def __init__(self, file_type: str = "jpg") -> None:
        self.is_files = file_type != "jpg"
        self.suffix = HDF5_SUFFIX if file_type == "hdf5" else ""
        self.any_suffix = file_type == "video"
        self._listings: dict[str, Mapping[str, str]] = {}

    def __str__(self) -> str:
        return "video file" if self.any_suffix else "file" if self.is_files else "folder"

    def find(self, folder: str, name: str) -> str | None:
        """The path of the frames of the video that an index knows as FOLDER/NAME."""
        if self.suffix and not name.endswith(self.suffix):
            name += self.suffix
        listing = self._listings.get(folder)
        if listing is None:
            listing = self._listings[folder] = self._list(folder)
        found = listing.get(name)
        if found is not None:
            return f"{folder}/{found}" if folder else found
        # Some file systems know a name in more than one spelling.
        path = os.path.join(folder, name)
        is_there = os.path.isfile(path) if self.is_files else os.path.isdir(path)
        return path if is_there else None

    def _list(self, parent: str) -> Mapping[str, str]:
        """Names, for video files also without their suffix where one file alone has that name."""
        try:
            with os.scandir(parent or ".") as items:
                names = [i.name for i in items if (i.is_file() if self.is_files else i.is_dir())]
        except (OSError, ValueError):  # ValueError: a NUL character in the name
            return {}
        if not self.any_suffix:
            return dict(zip(names, names, strict=True))
        stems = Counter(os.path.splitext(name)[0] for name in names)
        short = {stem: name for name in names if stems[stem := os.path.splitext(name)[0]] == 1}
        return short | dict(zip(names, names, strict=True))


def locate(index: Index, entry: Entry, frames_dir: str, shelf: Shelf) -> tuple[str, bool]:
    """Where a video's frames lie, or would, and whether they are there."""
    if entry.video_path is None:
        unlabelled = entry.label == UNLABELLED
        label = UNLABELLED_FOLDER if unlabelled else index.labels[entry.label]
        places = [(f"{frames_dir}/{label}", entry.video_id)]
        if "/" in entry.video_id:
            places = [_split(f"{frames_dir}/{label}/{entry.video_id}")]
    else:
        name = str(Path(entry.video_path))
        # An absolute path stays as it is.
        places = [_split(os.path.join(frames_dir, name)), _split(name)]
    for folder, name in places:
        found = shelf.find(folder, name)
        if found is not None:
            return found, True
    absent = "/".join(places[0])
    return absent + ("" if absent.endswith(shelf.suffix) else shelf.suffix), False


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _why_absent(path: str, shelf: Shelf) -> str:
    try:
        os.stat(path)
    except PermissionError as error:
        return f"{path} can't be read: {error.strerror}"
    except (OSError, ValueError):  # ValueError: a NUL character in the name
        pass
    return f"no {shelf} {path}"


def _why_unusable(path: str, look_inside: bool) -> str | None:
    if not look_inside:
        return None
    try:
        with os.scandir(path) as items:
            return None if next(items, None) else f"no frames in {path}"
    except OSError as error:
        return f"{path} can't be read: {error}"


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
