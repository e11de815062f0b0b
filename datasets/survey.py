"""Count the frames on disk, for the commands that write an index."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tqdm import tqdm

from datasets.frame_locations import FIRST_NUMBER, FrameLocator, by_stem
from datasets.hdf5 import HDF5_SUFFIX, count_hdf5
from datasets.video_files import count_video
from errors import UserError
from media.ffmpeg import Ffmpeg
from media.frame_names import FrameCount, count_frames, why_no_frames
from media.manifest import FAILED
from media.orphans import find_orphans
from media.verdicts import is_video_name, why_no_video
from media.walking import UNREADABLE, Visit, walk
from utils.command_line import printable
from utils.text import first_few
from utils.threads import thread_pool

NO_FOLDER: Mapping[type[OSError], str] = {
    FileNotFoundError: "no folder",
    NotADirectoryError: "no folder",
}
NO_FRAMES = FrameCount(0, None)
MAX_LISTED = 20  # videos that a message lists


class Survey(NamedTuple):
    """Frames per video below JPG_DIR, and why the other videos are omitted.

    A video is a folder of JPGs, an HDF5 file or the video file itself. `orphans` have frames, but
    their video is gone or broken.
    """

    n_frames: dict[str, int]
    missing: dict[str, str]
    file_type: str = "jpg"
    orphans: Mapping[str, str] = MappingProxyType({})

    @property
    def first(self) -> int:
        """The number of a video's first frame."""
        return FIRST_NUMBER[self.file_type]


def survey_frames(jpg_dir: Path, paths: Iterable[str]) -> Survey:
    """Count the frames of the videos at `paths` below JPG_DIR, with one listing each.

    Raises UserError for gaps in the frame numbers, and if no video has frames.
    """
    if not jpg_dir.is_dir():
        raise UserError(f"{jpg_dir}: no such folder of frames")
    counts, missing = count_folders({path: jpg_dir / path for path in paths})
    locators = [FrameLocator(file_type) for file_type in FIRST_NUMBER if file_type != "jpg"]
    files: dict[str, Path] = {}
    for path in missing:
        folder, name = os.path.split(jpg_dir / path)
        found = next(filter(None, (locator.find(folder, name) for locator in locators)), None)
        if found is not None:
            files[path] = Path(found)
    kinds = set(map(_file_type, files.values()))
    if "hdf5" in kinds or any(count.n_frames for count in counts.values()):
        # Notes and the like beside extracted frames are no videos.
        files = {path: file for path, file in files.items() if _has_frames_name(file)}
    missing = {path: reason for path, reason in missing.items() if path not in files}
    return _complete(jpg_dir, counts, missing, files)


def count_folders(folders: Mapping[str, Path]) -> tuple[dict[str, FrameCount], dict[str, str]]:
    """Count the frames of folders; return the counts, and why the rest has none."""
    counts, missing = {}, {}
    for name, folder in tqdm(folders.items(), "counting frames", unit="video", disable=None):
        try:
            names = os.listdir(folder)
        except OSError as error:
            missing[name] = NO_FOLDER.get(type(error), error.strerror or str(error))
            continue
        count = count_frames(names)
        if count == NO_FRAMES:
            missing[name] = why_no_frames(names)
        else:
            counts[name] = count
    return counts, missing


def survey_folder(jpg_dir: Path) -> Survey:
    """Count the frames of every folder below JPG_DIR, HDF5 files and video files included.

    A folder without frames is missing only if it has no subfolders. Hidden folders, which include
    unfinished extractions, are skipped. Raises UserError like survey_frames.
    """
    if not jpg_dir.is_dir():
        raise UserError(f"{jpg_dir}: no such folder of frames")
    counts: dict[str, FrameCount] = {}
    missing: dict[str, str] = {}
    hdf5: dict[str, Path] = {}
    without_frames: list[Visit] = []
    skipped: dict[str, str] = {}
    for visit in tqdm(walk(jpg_dir), desc="counting frames", unit="folder", disable=None):
        here = visit.path.relative_to(jpg_dir)
        skipped |= {(here / name).as_posix(): reason for name, reason in _skipped(visit)}
        found = [name for name in visit.files if name.endswith(HDF5_SUFFIX)]
        hdf5 |= {
            (here / name.removesuffix(HDF5_SUFFIX)).as_posix(): visit.path / name for name in found
        }
        count = count_frames(visit.files)
        if count != NO_FRAMES:
            counts[here.as_posix()] = count
        elif not found:
            without_frames.append(visit)
            if not visit.folders:
                missing[here.as_posix()] = why_no_frames(visit.files)
    print_list("files and folders are skipped:", skipped)
    if hdf5 or any(count.n_frames for count in counts.values()):
        return _complete(jpg_dir, counts, missing, hdf5)
    videos, failed = _find_videos(jpg_dir, without_frames)
    if videos:
        holders = {os.path.dirname(path) or "." for path in (*videos, *failed)}
        missing = {path: why for path, why in missing.items() if path not in holders} | failed
    return _complete(jpg_dir, counts, missing, videos)


def _skipped(visit: Visit) -> Iterator[tuple[str, str]]:
    """Yield (name, reason) of what is skipped. Raises UserError for what can't be read."""
    for name, reason, _ in visit.skipped:
        if UNREADABLE in reason:
            raise UserError(f"{visit.path / name}: {reason}")
        yield name, reason


def _find_videos(jpg_dir: Path, visits: Sequence[Visit]) -> tuple[dict[str, Path], dict[str, str]]:
    """Find video files, and files with a video's suffix that are no video, with the reason."""
    videos: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for visit in visits:
        here = visit.path.relative_to(jpg_dir)
        for name, file_name in by_stem(visit.files).items():
            file = visit.path / file_name
            verdict = why_no_video(file)
            if verdict is None:
                videos[(here / name).as_posix()] = file
            elif verdict.status == FAILED:
                failed[(here / name).as_posix()] = verdict.reason
    return videos, failed


def count_files(files: Mapping[str, Path]) -> tuple[dict[str, FrameCount], dict[str, str]]:
    """Count the frames of HDF5 and video files; return the counts, and why the rest has none."""
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


def _has_frames_name(file: Path) -> bool:
    return _file_type(file) == "hdf5" or is_video_name(file.name)


def _complete(
    jpg_dir: Path,
    counts: Mapping[str, FrameCount],
    missing: Mapping[str, str],
    files: Mapping[str, Path],
) -> Survey:
    """Count the frames of `files` as well, and check everything.

    Raises UserError for a mix of formats, gaps in the frame numbers, and no frames at all.
    """
    examples: dict[str, str] = {}
    for path, file in files.items():
        examples.setdefault(_file_type(file), path)
    folder = next((path for path, count in counts.items() if count.n_frames), None)
    if folder is not None:
        examples["jpg"] = folder
    if len(examples) > 1:
        found = " and ".join(f"{name} (for example {path})" for name, path in examples.items())
        raise UserError(
            f"{jpg_dir}: holds frames in several formats: {found}; main.py reads one, so move the "
            "others to a folder of their own"
        )
    file_counts, unreadable = count_files(files)
    counts, missing = {**counts, **file_counts}, {**missing, **unreadable}
    orphans = {
        path: f"{orphan.source}: {orphan.reason}"
        for path, orphan in find_orphans(jpg_dir).items()
        if path in counts and orphan.matches(counts[path].n_frames)
    }
    counts = {path: count for path, count in counts.items() if path not in orphans}
    _refuse_gaps(jpg_dir, counts)
    n_frames = {path: count.n_frames for path, count in counts.items()}
    if not n_frames:
        _refuse_empty(jpg_dir, {**missing, **orphans})
    return Survey(n_frames, missing, next(iter(examples), "jpg"), orphans)


def _refuse_gaps(jpg_dir: Path, counts: Mapping[str, FrameCount]) -> None:
    gaps = [f"{path}: frame {n.missing}" for path, n in counts.items() if n.missing is not None]
    if gaps:
        raise UserError(
            f"{jpg_dir}: {len(gaps)} videos lack a frame though they have later ones; delete "
            f"their folders or extract them again: {'; '.join(first_few(gaps, MAX_LISTED))}"
        )


def _refuse_empty(jpg_dir: Path, reasons: Mapping[str, str]) -> None:
    """Raise UserError because no video has frames."""
    example = next(iter(reasons), "none")
    for path, reason in reasons.items():
        if "pictures" in reason:
            example = f"{path}: {reason}"
            break
    raise UserError(
        f"{jpg_dir}: no frames in any of {len(reasons)} video folders (for example {example}); "
        "JPG_DIR is the folder that generate_video_jpgs wrote, or the folder of the videos for "
        "--file_type video"
    )


def print_missing(survey: Survey) -> None:
    """Print which videos are left out of the index."""
    print_list("videos without frames are left out:", survey.missing)
    print_list(
        "videos have frames but are left out, because the last extraction found the video gone or "
        "broken (generate_video_jpgs --prune removes the frames, --keep_gone keeps those of "
        "videos that are gone):",
        survey.orphans,
    )


def print_list(title: str, reasons: Mapping[str, str]) -> None:
    """Print how many there are, and the first few with the reason; nothing if there are none."""
    if not reasons:
        return
    print(f"{len(reasons)} {title}")
    lines = [f"{printable(path)}: {printable(reason)}" for path, reason in reasons.items()]
    for line in first_few(lines, MAX_LISTED):
        print(f"  {line}")
