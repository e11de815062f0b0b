"""Compare an index with the frames on disk: missing, damaged or miscounted frames, and the same
pictures in two subsets."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from tqdm import tqdm

from datasets.activitynet import FOLDER_PREFIX, UntrimmedIndex, UntrimmedVideo, part_fault
from datasets.frame_locations import FIRST_NUMBER, FrameLocator, segment_fault
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
from datasets.survey import count_files, count_folders, print_list
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

    @property
    def numbers(self) -> range:
        """The frames of its segment that were found; all frames if the index has none."""
        begin, end = self.entry.segment or (0, 0)
        if begin == end:
            return range(self.first, self.last + 1)
        return range(max(begin, self.first), min(end, self.last + 1))


def check_frames(
    index: Index, frames_dir: Path, file_type: str
) -> tuple[list[FoundVideo], list[Finding]]:
    """Compare the index with the disk; return the videos that have frames, and what is wrong."""
    videos: list[FoundVideo] = []
    findings: list[Finding] = []
    untrimmed = {v.video_id: v for v in index.videos} if isinstance(index, UntrimmedIndex) else {}
    locator = FrameLocator(file_type)
    place_of = {
        entry.video_id: (
            f"{frames_dir}/{FOLDER_PREFIX}{entry.video_id}"
            if untrimmed
            else locator.locate(index, entry, str(frames_dir))[0]
        )
        for entry in index.entries
    }
    is_jpg = file_type == "jpg"
    places = {place: Path(place) for place in place_of.values()}  # parts of a video share one
    counts, missing = (count_folders if is_jpg else count_files)(places)
    for entry in index.entries:
        name, place = entry.video_id, place_of[entry.video_id]
        if (count := counts.get(place)) is None:
            where = f"{name}: {place}" if is_jpg else name
            findings.append(Finding(MISSING, f"{where}: {missing[place]}"))
            continue
        if count.missing is not None:
            findings.append(Finding(GAPS, f"{name}: frame {count.missing} is missing"))
        elif not count.n_frames:
            findings.append(Finding(MISSING, f"{name}: no frames in {place}"))
        if count.n_frames:
            video = FoundVideo(entry, places[place], FIRST_NUMBER[file_type], count.n_frames)
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
        if not (numbers := video.numbers):
            continue  # its segment begins after the last frame
        try:
            [frame] = source.read(video.path, [numbers[(len(numbers) - 1) // 2]])
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
        numbers: Sequence[int] = video.numbers
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
    within the frames found stay as they are, because they may be parts of videos. Known parts that
    do not fit are printed and stay as well: their times may have other frames now.

    Returns the number of entries that changed. Raises UserError if it can't be written.
    """
    content = read_json(path, "index")
    n_entries = Counter(video.path for video in videos)
    changed, left = 0, {}
    for video in videos:
        name, (begin, end) = video.entry.video_id, video.entry.segment or (0, 0)
        if video.first <= begin < end <= video.last + 1:
            continue
        # The id of a part ends in its frames (see index_writer.make_entries).
        is_part = n_entries[video.path] > 1 or name.endswith(f"_{begin:06d}_{end - 1:06d}")
        segment = None if is_part else _corrected(video, begin, end)
        if segment is None:
            said = f"segment {[begin, end]}" if begin < end else "no segment"
            left[name] = f"{said} in the index; frames {video.first} to {video.last} found"
            continue
        content["database"][name].setdefault("annotations", {})["segment"] = segment
        changed += 1
    print_list("segments do not fit the frames found; write the index again:", left)
    if changed:
        print(f"backup of the index: {back_up(path)}")
        write_json(path, content)
    return changed


def _corrected(video: FoundVideo, begin: int, end: int) -> list[int] | None:
    """Return the segment within the frames found: all frames if it was empty, and one frame later
    if it was counted from 0. None if it begins after the last frame."""
    late = max(0, video.first - begin)
    if begin == end or (late and end + late == video.last):  # its last frame was counted
        return [video.first, video.last + 1]
    segment = [begin + late, min(end + late, video.last + 1)]
    return segment if segment[0] < segment[1] else None
