"""ActivityNet's index format: classes are the leaves of a taxonomy, annotations are in seconds.

{"taxonomy": [{"nodeName": "A", "parentName": "Root"}, …],
 "database": {"ID": {"subset": "training", "fps": 25.0,
                     "annotations": [{"label": "A", "segment": [first, last second]}, …]}}}

Frames lie in FRAMES_DIR/v_ID. Training and validation use the annotated parts, inference the whole
video.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from datasets.index import SUBSETS, UNLABELLED, Index, check_labels, read_index
from datasets.records import CompactEntries, Entry, VideoRecord, compact_records
from datasets.selection import Selection, refuse_empty
from errors import UserError
from media.frame_names import count_frames, why_no_frames
from utils.reading import bad_name, shown, shown_name, typed

MIN_FRAMES = 8  # shorter annotated parts are left out, as in the original
FOLDER_PREFIX = "v_"
Seconds = Annotated[float, msgspec.Meta(gt=-1e9, lt=1e9)]


class Part(NamedTuple):
    """An annotated part of a video, in seconds."""

    label: int
    start: float
    end: float


class UntrimmedVideo(NamedTuple):
    video_id: str
    subset: str
    fps: float | None
    parts: tuple[Part, ...]

    @property
    def first_label(self) -> int:
        return self.parts[0].label if self.parts else UNLABELLED


@dataclass(frozen=True)
class UntrimmedIndex(Index):
    """An index in ActivityNet's format. `entries`, from which accuracy is computed, has one entry
    per video, with the label of its first part."""

    videos: tuple[UntrimmedVideo, ...]


class _Node(msgspec.Struct):
    nodeName: str
    parentName: str | None = None


class _Annotation(msgspec.Struct):
    label: str
    segment: tuple[Seconds, Seconds]


class _Video(msgspec.Struct):
    subset: str
    fps: Annotated[float, msgspec.Meta(gt=0, lt=1e6)] | None = None
    annotations: list[_Annotation] = []


def read_any_index(path: Path) -> Index:
    """Read and check an index of either format. Raises UserError that names the entry at fault."""
    return read_index(path, other_format=_parse_untrimmed)


def _parse_untrimmed(path: Path, content: dict[str, Any]) -> UntrimmedIndex:
    if not isinstance(content.get("database"), dict):
        raise UserError(f"{path}: not an index: it has no object 'database'")
    labels = _leaves(typed(content["taxonomy"], list[_Node], f"{path}: taxonomy"))
    check_labels(path, labels)
    numbers = {label: number for number, label in enumerate(labels)}
    videos = tuple(
        _read_video(f"{path}: {shown_name(video_id)}", video_id, entry, numbers)
        for video_id, entry in content["database"].items()
    )
    entries = (Entry(v.video_id, v.subset, v.first_label, None, None) for v in videos)
    return UntrimmedIndex(path, labels, CompactEntries(entries), videos)


def _leaves(taxonomy: Sequence[_Node]) -> tuple[str, ...]:
    """Return the names of the nodes without children, in order."""
    parents = {node.parentName for node in taxonomy}
    leaves = [node.nodeName for node in taxonomy if node.nodeName not in parents]
    return tuple(dict.fromkeys(leaves))


def _read_video(
    place: str, video_id: str, entry: Any, numbers: Mapping[str, int]
) -> UntrimmedVideo:
    video = typed(entry, _Video, place)
    fault = bad_name(video_id)
    if video.subset not in SUBSETS:
        fault = f"subset {shown(video.subset)} is not training, validation or testing"
    for annotation in video.annotations:
        if annotation.label not in numbers:
            fault = f"label {shown(annotation.label)} is not a leaf of the taxonomy"
    if fault is not None:
        raise UserError(f"{place}: {fault}")
    parts = tuple(Part(numbers[a.label], *a.segment) for a in video.annotations)
    return UntrimmedVideo(video_id, SUBSETS[video.subset], video.fps, parts)


def narrowed(index: Index, video_ids: Collection[str]) -> Index:
    """Return the index restricted to some of its videos."""
    entries = CompactEntries(e for e in index.entries if e.video_id in video_ids)
    if not isinstance(index, UntrimmedIndex):
        return replace(index, entries=entries)
    videos = tuple(video for video in index.videos if video.video_id in video_ids)
    return replace(index, entries=entries, videos=videos)


def select_parts(index: UntrimmedIndex, subset: str, frames_dir: Path) -> Selection:
    """Select the annotated parts of a subset's videos; omit those without frames and short ones.

    Raises UserError as selection.select_videos does.
    """
    records: list[VideoRecord] = []
    omitted: list[tuple[str, str]] = []
    for video, folder, n_frames in _with_frames(index, subset, frames_dir, omitted):
        if video.fps is None:
            raise UserError(
                f"{index.path}: {video.video_id}: no fps; first run python -m "
                "util_scripts.add_fps_into_activitynet_json VIDEO_DIR INDEX"
            )
        for part in video.parts:
            first, end = frame_range(part, video.fps, n_frames)
            if (reason := part_fault(part, video.fps, n_frames)) is not None:
                omitted.append((video.video_id, reason))
                continue
            records.append(VideoRecord(video.video_id, folder, first, end - 1, part.label))
    refuse_empty(index.path, subset, records, omitted)
    return Selection(compact_records(records), omitted)


def part_fault(part: Part, fps: float, n_frames: int) -> str | None:
    """Explain why training leaves an annotated part out; None if it does not."""
    first, end = frame_range(part, fps, n_frames)
    if end - first >= MIN_FRAMES:
        return None
    return f"{part.start} to {part.end} s: {max(0, end - first)} frames"


def frame_range(part: Part, fps: float, n_frames: int) -> tuple[int, int]:
    """Return the number of the first frame and of the last + 1, within 1 … n_frames."""
    first = max(1, int(part.start * fps) + 1)
    return first, min(int(part.end * fps) + 1, n_frames + 1)


def select_whole(index: UntrimmedIndex, subset: str, frames_dir: Path) -> Selection:
    """Select a subset's videos, each from its first to its last frame."""
    omitted: list[tuple[str, str]] = []
    records = [
        VideoRecord(v.video_id, folder, 1, n_frames, v.first_label)
        for v, folder, n_frames in _with_frames(index, subset, frames_dir, omitted)
    ]
    refuse_empty(index.path, subset, records, omitted)
    return Selection(compact_records(records), omitted)


def _with_frames(
    index: UntrimmedIndex, subset: str, frames_dir: Path, omitted: list[tuple[str, str]]
) -> Iterator[tuple[UntrimmedVideo, Path, int]]:
    """Yield videos with their folder and number of frames; append the others to `omitted`."""
    if not frames_dir.is_dir():
        raise UserError(f"{frames_dir}: no such folder of frames")
    for video in _of_subset(index.videos, subset):
        folder = frames_dir / f"{FOLDER_PREFIX}{video.video_id}"
        try:
            names = os.listdir(folder)
        except OSError:
            omitted.append((video.video_id, f"no folder {folder}"))
            continue
        n_frames, missing = count_frames(names)
        if missing is not None:
            raise UserError(f"{folder}: frame {missing} is missing, though there are later ones")
        if n_frames:
            yield video, folder, n_frames
        else:
            omitted.append((video.video_id, f"{folder}: {why_no_frames(names)}"))


def _of_subset(videos: Iterable[UntrimmedVideo], subset: str) -> Iterator[UntrimmedVideo]:
    return (video for video in videos if video.subset == subset)
