"""Compare an index with the frames on disk: missing, damaged or miscounted frames, and the same
pictures in two subsets."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from tqdm import tqdm

from datasets.activitynet import FOLDER_PREFIX, UntrimmedIndex, UntrimmedVideo, part_fault
from datasets.frame_locations import FrameLocator
from datasets.frame_readers import (
    FrameError,
    FrameSource,
    Hdf5Videos,
    JpgFolder,
    VideoFiles,
    decode_with_pillow,
)
from datasets.hdf5 import FLOW, HDF5_SUFFIX, has_flow
from datasets.index import Index
from datasets.index_checks import SAME_RECORDING, UNEVEN, Finding, on_both_sides
from datasets.records import Entry
from datasets.segments import FIRST_NUMBER, segment_fault
from datasets.survey import count_files, count_folders
from errors import UserError
from media.orphans import find_orphans
from utils.files import back_up, write_json
from utils.reading import read_json

SAMPLED_VIDEOS, SAMPLED_FRAMES = 200, 3
SEED = 1

MISSING = "videos without frames"
GAPS = "videos with a gap in their frame numbers"
UNREADABLE = "videos whose frames differ from those in the index"
ORPHANED = "videos with frames, found gone or broken by the last extraction"
MORE = "videos with more frames than in the index"
DAMAGED = "frames that can't be decoded"
SIZES = "videos whose frames differ in size"
SAME_PICTURE = "videos with the same middle frame in training and another subset"
PAST_THE_END = "videos that end before an annotated part"
SHORT = "annotated parts that training leaves out"
NO_RATE = "videos without a frame rate (add_fps_into_activitynet_json)"
NOTES = (MORE, SHORT, UNEVEN, *SAME_RECORDING.values())  # worth knowing; the rest is wrong


class FoundVideo(NamedTuple):
    """An entry of the index and the frames found for it."""

    entry: Entry
    path: Path
    first: int
    n_frames: int

    @property
    def last(self) -> int:
        return self.first + self.n_frames - 1


def check_frames(
    index: Index, frames_dir: Path, file_type: str
) -> tuple[list[FoundVideo], list[Finding]]:
    """Compare the index with the disk; return the videos that have frames, and what is wrong."""
    videos: list[FoundVideo] = []
    findings: list[Finding] = []
    untrimmed = {v.video_id: v for v in index.videos} if isinstance(index, UntrimmedIndex) else {}
    locator = FrameLocator(file_type)
    paths = {
        entry.video_id: Path(
            f"{frames_dir}/{FOLDER_PREFIX}{entry.video_id}"
            if untrimmed
            else locator.locate(index, entry, str(frames_dir))[0]
        )
        for entry in index.entries
    }
    is_jpg = file_type == "jpg"
    counts, missing = (count_folders if is_jpg else count_files)(paths)
    for entry in index.entries:
        name, count = entry.video_id, counts.get(entry.video_id)
        if count is None:
            place = f"{name}: {paths[name]}" if is_jpg else name
            findings.append(Finding(MISSING, f"{place}: {missing[name]}"))
            continue
        if count.missing is not None:
            findings.append(Finding(GAPS, f"{name}: frame {count.missing} is missing"))
        elif not count.n_frames:
            findings.append(Finding(MISSING, f"{name}: no frames in {paths[name]}"))
        if count.n_frames:
            video = FoundVideo(entry, paths[name], FIRST_NUMBER[file_type], count.n_frames)
            videos.append(video)
            if name in untrimmed:
                findings += _check_parts(video, untrimmed[name])
            else:
                findings += _check_segment(video, file_type)
    return videos, findings


def _check_segment(video: FoundVideo, file_type: str) -> Iterator[Finding]:
    segment = video.entry.segment
    fault = segment_fault(segment, file_type, video.n_frames)
    if fault is not None:
        yield Finding(UNREADABLE, f"{video.entry.video_id}: {fault}")
    elif segment is not None and segment[1] - 1 < video.last:
        text = f"frames up to number {video.last}, but up to {segment[1] - 1} in the index"
        yield Finding(MORE, f"{video.entry.video_id}: {text}")


def _check_parts(video: FoundVideo, untrimmed: UntrimmedVideo) -> Iterator[Finding]:
    name = untrimmed.video_id
    if untrimmed.fps is None:
        yield Finding(NO_RATE, name)
        return
    end = max((part.end for part in untrimmed.parts), default=0)
    seconds = video.n_frames / untrimmed.fps
    if end > seconds + 1:  # annotations are rounded
        yield Finding(PAST_THE_END, f"{name}: {seconds:.1f} s of frames, annotated to {end:.1f} s")
    for part in untrimmed.parts:
        if (fault := part_fault(part, untrimmed.fps, video.n_frames)) is not None:
            yield Finding(SHORT, f"{name}: {fault}")


def check_orphans(videos: Sequence[FoundVideo], frames_dir: Path) -> Iterator[Finding]:
    """Find videos that were gone or broken when their frames were last extracted."""
    orphans = find_orphans(frames_dir)
    for video in videos if orphans else ():
        place = Path(os.path.relpath(video.path, frames_dir)).as_posix()
        orphan = orphans.get(place.removesuffix(HDF5_SUFFIX))
        if orphan is not None and orphan.matches(video.n_frames):
            yield Finding(ORPHANED, f"{video.entry.video_id}: {orphan.source}: {orphan.reason}")


def reader_for(videos: Sequence[FoundVideo], file_type: str) -> FrameSource:
    """Choose the frame reader; an HDF5 file shows whether it holds pictures or flow."""
    if file_type == "video":
        return VideoFiles(decode_with_pillow, is_sequential=True)
    if file_type == "jpg":
        return JpgFolder(decode_with_pillow)
    for video in videos:
        with suppress(UserError):  # a damaged file is reported when its frames are read
            if has_flow(video.path):
                return Hdf5Videos(decode_with_pillow, FLOW, channels=1)
            break
    return Hdf5Videos(decode_with_pillow)


def check_duplicates(
    index: Index, videos: Sequence[FoundVideo], source: FrameSource
) -> Iterator[Finding]:
    """Find training videos that share their middle frame with a video of another subset."""
    hashes = {}
    for video in tqdm(videos, desc="comparing", unit="video", disable=None):
        try:
            [frame] = source.read(video.path, [video.first + (video.n_frames - 1) // 2])
        except FrameError:
            continue  # check_pixels reports it
        digest = hashlib.blake2b(frame.numpy().tobytes(), digest_size=16).hexdigest()
        hashes[video.entry.video_id] = digest
    yield from on_both_sides(SAME_PICTURE, index, lambda entry: hashes.get(entry.video_id))


def check_pixels(
    videos: Sequence[FoundVideo], source: FrameSource, *, check_all: bool
) -> Iterator[Finding]:
    """Decode frames: some frames of some videos, drawn with a fixed seed, or all."""
    draw = Random(SEED)
    is_sample = len(videos) > SAMPLED_VIDEOS and not check_all
    chosen = draw.sample(videos, SAMPLED_VIDEOS) if is_sample else videos
    for video in tqdm(chosen, desc="decoding", unit="video", disable=None):
        numbers: Sequence[int] = range(video.first, video.last + 1)
        if not check_all:
            numbers = sorted(draw.sample(numbers, min(SAMPLED_FRAMES, len(numbers))))
        sizes = set()
        for number in numbers:
            try:
                [frame] = source.read(video.path, [number])
                sizes.add((frame.shape[2], frame.shape[1]))
            except FrameError as error:
                yield Finding(DAMAGED, str(error))
        if len(sizes) > 1:
            listed = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            yield Finding(SIZES, f"{video.entry.video_id}: {listed}")


def fix_counts(path: Path, videos: Sequence[FoundVideo]) -> int:
    """Write the frame counts that were found into the index, after a backup (see back_up). Segments
    within the frames found stay as they are, because they may be parts of videos.

    Returns the number of entries that changed. Raises UserError if it can't be written.
    """
    content = read_json(path, "index")
    changed = 0
    for video in videos:
        begin, end = video.entry.segment or (0, 0)
        if video.first <= begin < end <= video.last + 1:
            continue
        is_part = video.first <= begin < min(end, video.last + 1)
        annotation = content["database"][video.entry.video_id].setdefault("annotations", {})
        annotation["segment"] = [begin if is_part else video.first, video.last + 1]
        changed += 1
    if changed:
        print(f"backup of the index: {back_up(path)}")
        write_json(path, content)
    return changed
