"""What the scripts that write an index share: counting frames, ids, and telling what is missing."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tqdm import tqdm

from datasets.annotation import UNLABELLED_FOLDER, FrameCount, count_frames, entry_of, write_index
from datasets.hdf5 import HDF5_SUFFIX, count_hdf5
from errors import UserError

NO_FOLDER: Mapping[type[OSError], str] = {
    FileNotFoundError: "no folder",
    NotADirectoryError: "no folder",
}
NAMED = 20  # videos without frames that are named before "and N more"


class Video(NamedTuple):
    """A video of an index to be: `path` is its folder below JPG_DIR, with slashes."""

    subset: str
    label: str | None
    path: str


class Survey(NamedTuple):
    """Frames per video below JPG_DIR, and the videos without frames with the reason.

    A video is a folder of JPGs, whose first frame is number 1, or an HDF5 file, where it is 0.
    """

    n_frames: dict[str, int]
    missing: dict[str, str]
    first: int = 1


def survey_frames(jpg_dir: Path, paths: Iterable[str]) -> Survey:
    """Count the frames of each folder with one listing. Raises UserError for gaps in the numbers,
    and where no folder has frames."""
    if not jpg_dir.is_dir():
        raise UserError(f"{jpg_dir}: no such folder of frames")
    counts: dict[str, FrameCount] = {}
    missing: dict[str, str] = {}
    files: set[str] = set()
    for path in tqdm(dict.fromkeys(paths), desc="counting frames", unit="video", disable=None):
        try:
            counts[path] = count_frames(os.listdir(jpg_dir / path))
        except OSError as error:
            file = jpg_dir / f"{path}{HDF5_SUFFIX}"
            if file.is_file():
                files.add(path)
                counts[path] = count_file(file)
            else:
                missing[path] = NO_FOLDER.get(type(error), str(error))
    return judge_counts(jpg_dir, counts, missing, files)


def count_file(path: Path) -> FrameCount:
    """The frames of an HDF5 file, which has no gaps; none in one that can't be read."""
    try:
        return FrameCount(count_hdf5(path), None)
    except UserError as error:
        print(error)
        return FrameCount(0, None)


def judge_counts(
    jpg_dir: Path,
    counts: Mapping[str, FrameCount],
    missing: Mapping[str, str],
    files: Collection[str] = (),
) -> Survey:
    """Counts per video -> Survey; `files` are those counted in HDF5 files. Raises UserError as
    survey_frames does, and where only some videos are files."""
    folders = [path for path, count in counts.items() if path not in files and count.n_frames]
    if files and folders:
        raise UserError(
            f"{jpg_dir}: holds HDF5 files (the first: {next(iter(files))}) beside folders of JPGs "
            f"(the first: {folders[0]}): an index counts from 0 in one, from 1 in the other"
        )
    gaps = [f"{path}: frame {n.missing}" for path, n in counts.items() if n.missing is not None]
    if gaps:
        more = f"; and {len(gaps) - NAMED} more" if len(gaps) > NAMED else ""
        raise UserError(
            f"{jpg_dir}: {len(gaps)} videos lack a frame though they have later ones; delete "
            f"their folders or extract them again: {'; '.join(gaps[:NAMED])}{more}"
        )
    n_frames = {path: count.n_frames for path, count in counts.items() if count.n_frames}
    empty = {path: "no frames" for path, count in counts.items() if not count.n_frames}
    if not n_frames:
        first = next(iter({**missing, **empty}), "none")
        raise UserError(
            f"{jpg_dir}: no frames in any of {len(empty) + len(missing)} video folders (the "
            f"first: {first}); JPG_DIR is the folder that generate_video_jpgs wrote"
        )
    return Survey(n_frames, {**missing, **empty}, first=0 if files else 1)


def print_missing(survey: Survey) -> None:
    """Count and name the videos without frames."""
    if not survey.missing:
        return
    print(f"{len(survey.missing)} videos without frames are left out:")
    for path, reason in list(survey.missing.items())[:NAMED]:
        print(f"  {path}: {reason}")
    if len(survey.missing) > NAMED:
        print(f"  and {len(survey.missing) - NAMED} more")


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
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    lines = enumerate(re.split(r"\r\n|\n|\r", text), 1)
    return [(f"{path}: line {number}", line.strip()) for number, line in lines if line.strip()]


def unique_videos(videos: Iterable[tuple[str, Video]]) -> list[Video]:
    """(place, video) -> the videos once each. Raises UserError for one in two subsets."""
    found: dict[str, Video] = {}
    for place, video in videos:
        first = found.setdefault(video.path, video)
        if first.subset != video.subset:
            raise UserError(f"{place}: {video.path} is a {first.subset} video already")
    return list(found.values())
