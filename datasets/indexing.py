"""What the scripts that write an index share: counting frames, ids, and telling what is missing."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from tqdm import tqdm

from datasets.hdf5 import HDF5_SUFFIX, count_hdf5
from datasets.index import (
    UNLABELLED_FOLDER,
    Shelf,
    entry_of,
    write_index,
)
from datasets.segments import FIRST_NUMBER
from datasets.video_files import count_video
from errors import UserError
from media.ffmpeg import Ffmpeg
from media.frame_names import FrameCount, count_frames, why_no_frames
from media.orphans import find_orphans
from utils.command_line import printable
from utils.reading import bad_name, read_text, shown
from utils.threads import thread_pool

NO_FOLDER: Mapping[type[OSError], str] = {
    FileNotFoundError: "no folder",
    NotADirectoryError: "no folder",
}
NO_FRAMES = FrameCount(0, None)
NAMED = 20  # videos without frames that are named before "and N more"


class Video(NamedTuple):
    """A video of an index to be: `path` is its folder below JPG_DIR, with slashes."""

    subset: str
    label: str | None
    path: str


class Survey(NamedTuple):
    """Frames per video below JPG_DIR, and the videos without frames with the reason; `orphans` have
    frames, but their video is not there any more.

    A video is a folder of JPGs, an HDF5 file or the video file itself; `first` is the number of
    its first frame.
    """

    n_frames: dict[str, int]
    missing: dict[str, str]
    file_type: str = "jpg"
    orphans: Mapping[str, str] = MappingProxyType({})

    @property
    def first(self) -> int:
        return FIRST_NUMBER[self.file_type]


def survey_frames(jpg_dir: Path, paths: Iterable[str]) -> Survey:
    """Count the frames of each folder with one listing. Raises UserError for gaps in the numbers,
    and where no folder has frames."""
    if not jpg_dir.is_dir():
        raise UserError(f"{jpg_dir}: no such folder of frames")
    counts: dict[str, FrameCount] = {}
    missing: dict[str, str] = {}
    files: dict[str, Path] = {}
    shelves = [Shelf(file_type) for file_type in FIRST_NUMBER if file_type != "jpg"]
    for path in tqdm(dict.fromkeys(paths), desc="counting frames", unit="video", disable=None):
        try:
            names = os.listdir(jpg_dir / path)
        except OSError as error:
            folder, name = os.path.split(jpg_dir / path)
            found = (shelf.find(folder, name) for shelf in shelves)
            file = next(filter(None, found), None)
            if file is None:
                missing[path] = NO_FOLDER.get(type(error), str(error))
            else:
                files[path] = Path(file)
            continue
        count = count_frames(names)
        if count == NO_FRAMES:
            missing[path] = why_no_frames(names)
        else:
            counts[path] = count
    return judge_counts(jpg_dir, counts, missing, files)


def count_files(files: Mapping[str, Path]) -> tuple[dict[str, FrameCount], dict[str, str]]:
    """The frames of HDF5 and video files, which have no gaps, and why the others have none."""
    counts, missing = {}, {}
    with thread_pool() as pool, Ffmpeg() as ffmpeg:
        counted = pool.map(partial(_count_file, ffmpeg), files.values())
        bar = tqdm(counted, "reading files", len(files), unit="video", disable=None)
        for path, answer in zip(files, bar, strict=True):
            if isinstance(answer, str):
                missing[path] = answer
            else:
                counts[path] = FrameCount(answer, None)
    return counts, missing


def _count_file(ffmpeg: Ffmpeg, file: Path) -> int | str:
    is_hdf5 = _file_type(file) == "hdf5"
    try:
        return count_hdf5(file) if is_hdf5 else count_video(file, ffmpeg)
    except UserError as error:
        return str(error)


def _file_type(file: Path) -> str:
    return "hdf5" if file.suffix == HDF5_SUFFIX else "video"


def judge_counts(
    jpg_dir: Path,
    counts: Mapping[str, FrameCount],
    missing: Mapping[str, str],
    files: Mapping[str, Path],
) -> Survey:
    """Counts per folder and files to count -> Survey. Raises UserError as survey_frames does, and
    where videos lie there in several forms."""
    firsts: dict[str, str] = {}
    for path, file in files.items():
        firsts.setdefault(_file_type(file), path)
    folder = next((path for path, count in counts.items() if count.n_frames), None)
    if folder is not None:
        firsts["jpg"] = folder
    if len(firsts) > 1:
        told = " and ".join(f"{name} (the first: {path})" for name, path in firsts.items())
        raise UserError(f"{jpg_dir}: holds frames in several forms, {told}: main.py reads one")
    file_counts, unreadable = count_files(files)
    counts, missing = {**counts, **file_counts}, {**missing, **unreadable}
    orphans = {
        path: f"{orphan.source}: {orphan.reason}"
        for path, orphan in find_orphans(jpg_dir).items()
        if path in counts and orphan.is_left(counts[path].n_frames)
    }
    counts = {path: count for path, count in counts.items() if path not in orphans}
    _refuse_gaps(jpg_dir, counts)
    n_frames = {path: count.n_frames for path, count in counts.items()}
    if not n_frames:
        _refuse_nothing(jpg_dir, {**missing, **orphans})
    return Survey(n_frames, missing, next(iter(firsts), "jpg"), orphans)


def _refuse_gaps(jpg_dir: Path, counts: Mapping[str, FrameCount]) -> None:
    gaps = [f"{path}: frame {n.missing}" for path, n in counts.items() if n.missing is not None]
    if gaps:
        more = f"; and {len(gaps) - NAMED} more" if len(gaps) > NAMED else ""
        raise UserError(
            f"{jpg_dir}: {len(gaps)} videos lack a frame though they have later ones; delete "
            f"their folders or extract them again: {'; '.join(gaps[:NAMED])}{more}"
        )


def _refuse_nothing(jpg_dir: Path, reasons: Mapping[str, str]) -> None:
    """Raises UserError where no video has frames."""
    first = next(iter(reasons), "none")
    for path, reason in reasons.items():
        if "pictures" in reason:
            first = f"{path}: {reason}"
            break
    raise UserError(
        f"{jpg_dir}: no frames in any of {len(reasons)} video folders (the first: {first}); "
        "JPG_DIR is the folder that generate_video_jpgs wrote, or that of the videos for "
        "--file_type video"
    )


def print_missing(survey: Survey) -> None:
    """Count and name the videos that are left out."""
    print_named("videos without frames are left out:", survey.missing)
    print_named(
        "videos have frames and are left out, since the last extraction found them gone or broken "
        "(generate_video_jpgs --prune removes the frames, --keep_gone lets those gone stay in):",
        survey.orphans,
    )


def print_named(title: str, reasons: Mapping[str, str]) -> None:
    """How many there are, and the first of them with what is wrong."""
    if not reasons:
        return
    print(f"{len(reasons)} {title}")
    for path, reason in list(reasons.items())[:NAMED]:
        print(f"  {printable(path)}: {printable(reason)}")
    if len(reasons) > NAMED:
        print(f"  and {len(reasons) - NAMED} more")


def make_entries(
    videos: Sequence[Video], survey: Survey, *, keep_missing: bool = False
) -> dict[str, Any]:
    """The database of an index: the videos that have frames, in the order given; with
    `keep_missing` the others too, without a segment.

    A video's id is its folder's name, or its whole path where several videos have that name.
    """
    names = Counter(PurePosixPath(video.path).name for video in videos)
    entries: dict[str, Any] = {}
    for subset, label, path in videos:
        n_frames = survey.n_frames.get(path)
        if n_frames is None and not keep_missing:
            continue
        name = PurePosixPath(path).name
        video_id = name if names[name] == 1 else path
        is_home = path == f"{UNLABELLED_FOLDER if label is None else label}/{video_id}"
        entries[video_id] = entry_of(
            subset, label, n_frames, video_path=None if is_home else path, first=survey.first
        )
    return entries


def write_and_tell(path: Path, labels: Sequence[str], entries: Mapping[str, Any]) -> None:
    """Write an index and print what is in it."""
    write_index(path, labels, entries)
    counts = Counter(entry["subset"] for entry in entries.values())
    videos = ", ".join(f"{counts[subset]} {subset}" for subset in sorted(counts))
    print(f"{path}: {len(labels)} labels; videos: {videos or 'none'}")


class Split(NamedTuple):
    """One split of an official list: its labels and its videos."""

    labels: list[str]
    videos: list[Video]


def write_splits(splits: Mapping[Path, Split], jpg_dir: Path) -> None:
    """Write one index per split, after all of them are found fit. Counts every video once."""
    survey = survey_frames(jpg_dir, (v.path for split in splits.values() for v in split.videos))
    print_missing(survey)
    for path, split in splits.items():
        write_and_tell(path, split.labels, make_entries(split.videos, survey))


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a list that are not blank, as (place for messages, stripped text)."""
    text = read_text(path, "list", errors="surrogateescape")
    lines = enumerate(re.split(r"\r\n|\n|\r", text), 1)
    return [(f"{path}: line {number}", line.strip()) for number, line in lines if line.strip()]


def without_suffix(place: str, name: str) -> str:
    """'a/v1.avi' -> 'a/v1'. Raises UserError, which begins with `place`, where no file is named."""
    path = PurePosixPath(name)
    if not path.name:
        raise UserError(f"{place}: {shown(name)} names no video")
    return str(path.with_suffix(""))


def unique_videos(videos: Iterable[tuple[str, Video]]) -> list[Video]:
    """(place, video) -> the videos once each; a second label of one is told and not kept. Raises
    UserError for one in two subsets."""
    found: dict[str, Video] = {}
    others: dict[str, str] = {}
    for place, video in videos:
        if (fault := bad_name(video.path)) is not None:
            raise UserError(f"{place}: video {shown(video.path)} {fault}")
        first = found.setdefault(video.path, video)
        if first.subset != video.subset:
            raise UserError(f"{place}: {video.path} is a {first.subset} video already")
        if first.label != video.label:
            others[video.path] = f"{first.label}, not {video.label}"
    print_named("videos are listed with a second label and keep the first:", others)
    return list(found.values())
