"""Write an index: its entries, and what the commands for the official lists share."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from datasets.frame_locations import UNLABELLED_FOLDER
from datasets.survey import Survey, print_list, print_missing, survey_frames
from errors import UserError
from utils.files import write_json
from utils.reading import bad_name, read_text, shown


class Video(NamedTuple):
    """A video to put into an index; `path` is its place below JPG_DIR, with slashes.

    `part` is [first frame, last frame + 1] of a part of it, None for all frames.
    """

    subset: str
    label: str | None
    path: str
    part: tuple[int, int] | None = None


class Split(NamedTuple):
    """One split of a dataset."""

    labels: list[str]
    videos: list[Video]


def entry_of(
    subset: str,
    label: str | None,
    n_frames: int | None,
    *,
    video_path: str | None = None,
    first: int = 1,
) -> dict[str, Any]:
    """Make an index entry for a video with frames `first` … `first + n_frames - 1`.

    It has no segment if `n_frames` is None.
    """
    annotation: dict[str, Any] = {} if label is None else {"label": label}
    if n_frames is not None:
        annotation["segment"] = [first, first + n_frames]
    entry: dict[str, Any] = {"subset": subset, "annotations": annotation}
    return entry if video_path is None else entry | {"video_path": video_path}


def write_index(path: Path, labels: Iterable[str], entries: Mapping[str, Any]) -> None:
    """Write an index atomically. Raises UserError if it can't be written."""
    write_json(path, {"labels": list(labels), "database": dict(entries)})


def make_entries(
    videos: Sequence[Video], survey: Survey, *, keep_missing: bool = False
) -> dict[str, Any]:
    """Make the entries of the videos that have frames, in the order given; with `keep_missing`
    also those of the others, without a segment.

    A video's id is the name of its folder, or its whole path if several videos share that name;
    that of a part ends in its first and last frame. Raises UserError if two get the same id.
    """
    names = Counter(PurePosixPath(path).name for path in {video.path for video in videos})
    entries: dict[str, Any] = {}
    for subset, label, path, part in videos:
        n_frames = survey.n_frames.get(path)
        if n_frames is None and not keep_missing:
            continue
        name = PurePosixPath(path).name
        video_id, first = name if names[name] == 1 else path, survey.first
        if part is not None:
            first, n_frames = part[0], part[1] - part[0]
            video_id += f"_{first:06d}_{part[1] - 1:06d}"
        if video_id in entries:
            raise UserError(f"two videos would be called {shown(video_id)}; rename one of them")
        is_default = path == f"{UNLABELLED_FOLDER if label is None else label}/{video_id}"
        entries[video_id] = entry_of(
            subset, label, n_frames, video_path=None if is_default else path, first=first
        )
    return entries


def write_and_print(path: Path, labels: Sequence[str], entries: Mapping[str, Any]) -> None:
    """Write an index and print what is in it."""
    write_index(path, labels, entries)
    counts = Counter(entry["subset"] for entry in entries.values())
    videos = ", ".join(f"{counts[subset]} {subset}" for subset in sorted(counts))
    print(f"{path}: {len(labels)} labels; videos: {videos or 'none'}")


def write_splits(splits: Mapping[Path, Split], jpg_dir: Path) -> None:
    """Write one index per split, after checking all. Counts each video's frames once."""
    survey = survey_frames(jpg_dir, (v.path for split in splits.values() for v in split.videos))
    print_missing(survey)
    for path, split in splits.items():
        write_and_print(path, split.labels, make_entries(split.videos, survey))


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Read the non-blank lines of a list as (place for messages, stripped text)."""
    text = read_text(path, "list", errors="surrogateescape")
    lines = enumerate(re.split(r"\r\n|\n|\r", text), 1)
    return [(f"{path}: line {number}", line.strip()) for number, line in lines if line.strip()]


def without_suffix(place: str, name: str) -> str:
    """'a/v1.avi' -> 'a/v1'. Raises UserError, which begins with `place`, for no file name."""
    path = PurePosixPath(name)
    if not path.name:
        raise UserError(f"{place}: {shown(name)} is not the name of a video")
    return str(path.with_suffix(""))


def unique_videos(videos: Iterable[tuple[str, Video]]) -> list[Video]:
    """Remove duplicates from (place, video). Prints videos with a second label, which is dropped.

    Raises UserError for a video in two subsets.
    """
    found: dict[str, Video] = {}
    second_labels: dict[str, str] = {}
    for place, video in videos:
        if (fault := bad_name(video.path)) is not None:
            raise UserError(f"{place}: video {shown(video.path)} {fault}")
        first = found.setdefault(video.path, video)
        if first.subset != video.subset:
            raise UserError(f"{place}: {video.path} is already a {first.subset} video")
        if first.label != video.label:
            second_labels[video.path] = f"{first.label}, not {video.label}"
    print_list("videos are listed with a second label and keep the first:", second_labels)
    return list(found.values())
