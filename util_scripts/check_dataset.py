"""What makes accuracy quietly wrong, in one report: frames that are missing, damaged or not as the
index counts them, labels without videos, and videos that are on both sides. Exit status 1 if
anything of the kind was found."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from tqdm import tqdm

from datasets.activitynet import (
    FOLDER_PREFIX,
    UntrimmedIndex,
    UntrimmedVideo,
    part_fault,
    read_any_index,
)
from datasets.compact import Entry
from datasets.frame_readers import (
    FrameError,
    FrameSource,
    Hdf5Videos,
    JpgFolder,
    VideoFiles,
    decode_with_pillow,
)
from datasets.hdf5 import FLOW, HDF5_SUFFIX, has_flow
from datasets.index import (
    Index,
    Shelf,
    locate,
)
from datasets.index_checks import (
    SAME_RECORDING,
    UNEVEN,
    Finding,
    by_kind,
    check_index,
    first_few,
    on_both_sides,
)
from datasets.indexing import NO_FRAMES, count_files
from datasets.segments import FIRST_NUMBER, segment_fault
from errors import UserError
from media.frame_names import FrameCount, count_frames, why_no_frames
from media.orphans import find_orphans
from utils.command_line import INPUT, Parser, run
from utils.files import back_up, write_json
from utils.reading import read_json

SAMPLED_VIDEOS, SAMPLED_FRAMES = 200, 3
SEED = 1

MISSING = "videos without frames"
GAPS = "videos with a gap in their frame numbers"
UNREADABLE = "videos whose frames are not those that the index counts"
ORPHANED = "videos with frames, found gone or broken by the last extraction"
MORE = "videos with more frames than the index counts"
DAMAGED = "frames that can't be decoded"
SIZES = "videos whose frames differ in size"
SAME_PICTURE = "videos with the same middle frame on both sides"
PAST_THE_END = "videos that end before an annotated part"
SHORT = "annotated parts that training leaves out"
NO_RATE = "videos without a frame rate (add_fps_into_activitynet_json)"
NOTES = (MORE, SHORT, UNEVEN, *SAME_RECORDING.values())  # worth knowing; all else is wrong


class Video(NamedTuple):
    """An entry of the index and the frames that are there."""

    entry: Entry
    path: Path
    first: int
    n_frames: int

    @property
    def last(self) -> int:
        return self.first + self.n_frames - 1


def check_frames(
    index: Index, frames_dir: Path, file_type: str
) -> tuple[list[Video], list[Finding]]:
    """Compare the index with what is there; the videos that have frames, and what is wrong."""
    videos: list[Video] = []
    found: list[Finding] = []
    shelf, first = Shelf(file_type), FIRST_NUMBER[file_type]
    untrimmed = {v.video_id: v for v in index.videos} if isinstance(index, UntrimmedIndex) else {}
    paths = {
        entry.video_id: Path(
            f"{frames_dir}/{FOLDER_PREFIX}{entry.video_id}"
            if untrimmed
            else locate(index, entry, str(frames_dir), shelf)[0]
        )
        for entry in index.entries
    }
    counts, missing = (_count_folders if file_type == "jpg" else count_files)(paths)
    for entry in index.entries:
        path = paths[entry.video_id]
        count = counts.get(entry.video_id)
        if count is None:
            found.append(Finding(MISSING, f"{entry.video_id}: {missing[entry.video_id]}"))
            continue
        if count.missing is not None:
            found.append(Finding(GAPS, f"{entry.video_id}: frame {count.missing} is missing"))
        elif not count.n_frames:
            found.append(Finding(MISSING, f"{entry.video_id}: no frames in {path}"))
        if count.n_frames:
            video = Video(entry, path, first, count.n_frames)
            videos.append(video)
            whole = untrimmed.get(entry.video_id)
            if whole is None:
                found += _check_segment(video, file_type)
            else:
                found += _check_parts(video, whole)
    return videos, found


def _count_folders(folders: Mapping[str, Path]) -> tuple[dict[str, FrameCount], dict[str, str]]:
    """The frames of each folder by video id, and why the others can't be listed."""
    counts, missing = {}, {}
    for video_id, folder in tqdm(folders.items(), desc="counting", unit="video", disable=None):
        try:
            names = os.listdir(folder)
        except OSError as error:
            missing[video_id] = f"{folder}: {error.strerror}"
            continue
        count = count_frames(names)
        if count == NO_FRAMES:
            missing[video_id] = f"{folder}: {why_no_frames(names)}"
        else:
            counts[video_id] = count
    return counts, missing


def _check_segment(video: Video, file_type: str) -> Iterator[Finding]:
    segment = video.entry.segment
    fault = segment_fault(segment, file_type, video.n_frames)
    if fault is not None:
        yield Finding(UNREADABLE, f"{video.entry.video_id}: {fault}")
    elif segment is not None and segment[1] - 1 < video.last:
        text = f"frames to number {video.last}, in the index to {segment[1] - 1}"
        yield Finding(MORE, f"{video.entry.video_id}: {text}")


def _check_parts(video: Video, whole: UntrimmedVideo) -> Iterator[Finding]:
    if whole.fps is None:
        yield Finding(NO_RATE, whole.video_id)
        return
    end = max((part.end for part in whole.parts), default=0)
    seconds = video.n_frames / whole.fps
    if end > seconds + 1:  # annotations are rounded
        text = f"{whole.video_id}: {seconds:.1f} s of frames, annotated to {end:.1f} s"
        yield Finding(PAST_THE_END, text)
    for part in whole.parts:
        if (fault := part_fault(part, whole.fps, video.n_frames)) is not None:
            yield Finding(SHORT, f"{whole.video_id}: {fault}")


def check_orphans(videos: Sequence[Video], frames_dir: Path) -> Iterator[Finding]:
    """Videos that were gone or broken when their frames were last extracted."""
    orphans = find_orphans(frames_dir)
    for video in videos if orphans else ():
        place = Path(os.path.relpath(video.path, frames_dir)).as_posix()
        orphan = orphans.get(place.removesuffix(HDF5_SUFFIX))
        if orphan is not None and orphan.is_left(video.n_frames):
            yield Finding(ORPHANED, f"{video.entry.video_id}: {orphan.source}: {orphan.reason}")


def source_of(videos: Sequence[Video], file_type: str) -> FrameSource:
    """What reads these videos; an HDF5 file tells whether it holds pictures or flow."""
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


def check_pictures(index: Index, videos: Sequence[Video], source: FrameSource) -> Iterator[Finding]:
    """The same middle frame on the training and another side."""
    hashes = {}
    for video in tqdm(videos, desc="comparing", unit="video", disable=None):
        try:
            [frame] = source.read(video.path, [video.first + (video.n_frames - 1) // 2])
        except FrameError:
            continue  # check_pixels tells
        digest = hashlib.blake2b(frame.numpy().tobytes(), digest_size=16).hexdigest()
        hashes[video.entry.video_id] = digest
    yield from on_both_sides(SAME_PICTURE, index, lambda entry: hashes.get(entry.video_id))


def check_pixels(
    videos: Sequence[Video], source: FrameSource, *, look_at_all: bool
) -> Iterator[Finding]:
    """Decode frames: some of some videos, drawn with a seed, or all of all."""
    draw = Random(SEED)
    few = len(videos) > SAMPLED_VIDEOS and not look_at_all
    chosen = draw.sample(videos, SAMPLED_VIDEOS) if few else videos
    for video in tqdm(chosen, desc="decoding", unit="video", disable=None):
        numbers: Sequence[int] = range(video.first, video.last + 1)
        if not look_at_all:
            numbers = sorted(draw.sample(numbers, min(SAMPLED_FRAMES, len(numbers))))
        sizes = set()
        for number in numbers:
            try:
                [frame] = source.read(video.path, [number])
                sizes.add((frame.shape[2], frame.shape[1]))
            except FrameError as error:
                yield Finding(DAMAGED, str(error))
        if len(sizes) > 1:
            told = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            yield Finding(SIZES, f"{video.entry.video_id}: {told}")


def fix_counts(path: Path, videos: Sequence[Video]) -> int:
    """Write the frame counts that were found into the index, and keep the old one: see back_up.

    Returns how many entries changed. Raises UserError where it can't be written.
    """
    content = read_json(path, "index")
    changed = 0
    for video in videos:
        begin, end = video.entry.segment or (0, 0)
        is_part = video.first <= begin < min(end, video.last + 1)
        first = begin if is_part else video.first
        annotation = content["database"][video.entry.video_id].setdefault("annotations", {})
        segment = [first, video.last + 1]
        changed += annotation.get("segment") != segment
        annotation["segment"] = segment
    if changed:
        print(f"the file as it was: {back_up(path)}")
        write_json(path, content)
    return changed


def report(findings: Sequence[Finding]) -> bool:
    """Print the findings by kind; whether anything is wrong."""
    kinds = by_kind(iter(findings))
    for kind, texts in kinds.items():
        print(f"{'note' if kind in NOTES else 'wrong'}: {len(texts)} {kind}")
        for line in first_few(texts):
            print(f"  {line}")
    return any(kind not in NOTES for kind in kinds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.check_dataset", description=__doc__)
    parser.add_argument("index", type=INPUT, help="index JSON")
    parser.add_argument("frames_dir", type=INPUT, help="folder of the frames")
    parser.add_argument("--file_type", default="jpg", choices=tuple(FIRST_NUMBER), help="(jpg)")
    parser.add_argument("--all", action="store_true", help="decode every frame, not a sample")
    parser.add_argument("--fix", action="store_true", help="write the frame counts found here")
    options = parser.parse_args(argv)
    index = read_any_index(options.index)
    if not options.frames_dir.is_dir():
        raise UserError(f"{options.frames_dir}: no such folder of frames")
    if options.file_type != "jpg" and isinstance(index, UntrimmedIndex):
        raise UserError(
            f"{options.index}: an index in ActivityNet's form is read from --file_type jpg, "
            f"not {options.file_type}"
        )
    if options.fix and isinstance(index, UntrimmedIndex):
        raise UserError("--fix: an index in ActivityNet's form holds seconds, no frame counts")
    videos, findings = check_frames(index, options.frames_dir, options.file_type)
    source = source_of(videos, options.file_type)
    findings += check_orphans(videos, options.frames_dir)
    findings += check_index(index)
    findings += check_pictures(index, videos, source)
    findings += check_pixels(videos, source, look_at_all=options.all)
    is_wrong = report(findings)
    subsets = Counter(entry.subset for entry in index.entries)
    told = ", ".join(f"{count} {subset}" for subset, count in sorted(subsets.items()))
    print(f"{len(index.labels)} labels; videos: {told}; {len(videos)} have frames")
    if options.fix:
        print(f"{options.index}: {fix_counts(options.index, videos)} frame counts rewritten")
    return 1 if is_wrong else 0


if __name__ == "__main__":
    sys.exit(run(main))
