"""What makes accuracy quietly wrong, in one report: frames that are missing, damaged or not as the
index counts them, labels without videos, and videos that are on both sides. Exit status 1 if
anything of the kind was found."""

import argparse
import hashlib
import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from datasets.annotation import (
    UNLABELLED,
    Index,
    Shelf,
    count_frames,
    locate,
    read_index,
    read_json,
    write_json,
)
from datasets.compact import Entry
from errors import UserError
from util_scripts.cli import run

NAMED = 10  # findings of one kind that are named before "and N more"
SAMPLED_VIDEOS, SAMPLED_FRAMES = 200, 3
SEED = 1
UCF_GROUP = re.compile(r"^(v_.+_g\d+)_c\d+$")
IMBALANCE = 10  # times as many training videos as another label has

MISSING = "videos without frames"
GAPS = "videos with a gap in their frame numbers"
FEWER = "videos with fewer frames than the index counts"
MORE = "videos with more frames than the index counts"
DAMAGED = "frames that can't be decoded"
SIZES = "videos whose frames differ in size"
NO_TRAINING = "labels without training videos"
NO_VALIDATION = "labels without validation videos"
ALIKE = "labels that differ in case, spaces or underscores only"
SAME_NAME = "videos of one name on both sides"
SAME_GROUP = "sources (UCF-101's groups) on both sides"
SAME_PICTURE = "videos with the same middle frame on both sides"
UNEVEN = f"labels with less than a {IMBALANCE}th of the training videos of the largest"
NOTES = (MORE, UNEVEN)  # worth knowing; all else is wrong


class Finding(NamedTuple):
    kind: str
    text: str


class Video(NamedTuple):
    """An entry of the index and the frames that are there."""

    entry: Entry
    folder: Path
    n_frames: int


def check_frames(index: Index, frames_dir: Path) -> tuple[list[Video], list[Finding]]:
    """Compare the index with the folders; the videos that have frames, and what is wrong."""
    videos: list[Video] = []
    found: list[Finding] = []
    shelf = Shelf()
    for entry in tqdm(index.entries, desc="listing", unit="video", disable=None):
        folder = Path(locate(index, entry, frames_dir, shelf)[0])
        try:
            count = count_frames(path.name for path in folder.iterdir())
        except OSError as error:
            found.append(Finding(MISSING, f"{entry.video_id}: {folder}: {error.strerror}"))
            continue
        if count.missing is not None:
            found.append(Finding(GAPS, f"{entry.video_id}: frame {count.missing} is missing"))
        elif not count.n_frames:
            found.append(Finding(MISSING, f"{entry.video_id}: no frames in {folder}"))
        if not count.n_frames:
            continue
        videos.append(Video(entry, folder, count.n_frames))
        last = entry.segment[1] - 1 if entry.segment else 0
        if last != count.n_frames:
            kind = FEWER if last > count.n_frames else MORE
            text = f"{entry.video_id}: {count.n_frames} frames, the index counts to {last}"
            found.append(Finding(kind, text))
    return videos, found


def check_labels(index: Index) -> Iterator[Finding]:
    """Labels that lack a side, look alike, or have few videos."""
    sides: dict[str, Counter[int]] = {"training": Counter(), "validation": Counter()}
    for entry in index.entries:
        if entry.subset in sides and entry.label != UNLABELLED:
            sides[entry.subset][entry.label] += 1
    largest = max(sides["training"].values(), default=0)
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for number, label in enumerate(index.labels):
        alike[re.sub(r"[\s_]+", "", label).casefold()].append(label)
        n_train, n_val = sides["training"][number], sides["validation"][number]
        if sides["training"] and not n_train:
            yield Finding(NO_TRAINING, label)
        elif n_train * IMBALANCE < largest:
            yield Finding(UNEVEN, f"{label}: {n_train} of {largest}")
        if sides["validation"] and not n_val:
            yield Finding(NO_VALIDATION, label)
    for labels in alike.values():
        if len(labels) > 1:
            yield Finding(ALIKE, ", ".join(labels))


def check_sides(index: Index, videos: Sequence[Video]) -> Iterator[Finding]:
    """The same video on the training and another side: by name, group, picture."""
    yield from _on_both_sides(SAME_NAME, ((Path(e.video_id).name, e) for e in index.entries))
    groups = ((UCF_GROUP.match(Path(e.video_id).name), e) for e in index.entries)
    yield from _on_both_sides(SAME_GROUP, ((m[1], e) for m, e in groups if m))
    pictures = tqdm(videos, desc="comparing", unit="video", disable=None)
    yield from _on_both_sides(SAME_PICTURE, ((_middle_frame(v), v.entry) for v in pictures))


def _on_both_sides(kind: str, keyed: Iterator[tuple[str, Entry]]) -> Iterator[Finding]:
    found: defaultdict[str, dict[bool, str]] = defaultdict(dict)
    for key, entry in keyed:
        found[key].setdefault(entry.subset == "training", entry.video_id)
    for sides in found.values():
        if len(sides) == 2:
            yield Finding(kind, f"{sides[True]} (training) and {sides[False]}")


def _middle_frame(video: Video) -> str:
    path = video.folder / f"image_{(video.n_frames + 1) // 2:05d}.jpg"
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return str(path)


def check_pixels(videos: Sequence[Video], *, look_at_all: bool) -> Iterator[Finding]:
    """Decode frames: some of some videos, drawn with a seed, or all of all."""
    draw = Random(SEED)
    few = len(videos) > SAMPLED_VIDEOS and not look_at_all
    chosen = draw.sample(videos, SAMPLED_VIDEOS) if few else videos
    for video in tqdm(chosen, desc="decoding", unit="video", disable=None):
        numbers: Sequence[int] = range(1, video.n_frames + 1)
        if not look_at_all:
            numbers = sorted(draw.sample(numbers, min(SAMPLED_FRAMES, len(numbers))))
        sizes = set()
        for number in numbers:
            path = video.folder / f"image_{number:05d}.jpg"
            try:
                with Image.open(path) as image:
                    image.load()
                    sizes.add(image.size)
            except (OSError, SyntaxError) as error:
                yield Finding(DAMAGED, f"{path}: {error}")
        if len(sizes) > 1:
            told = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            yield Finding(SIZES, f"{video.entry.video_id}: {told}")


def fix_counts(path: Path, videos: Sequence[Video]) -> int:
    """Write the frame counts that were found into the index; the old one stays as INDEX.bak.

    Returns how many entries changed. Raises UserError where it can't be written.
    """
    content = read_json(path, "index")
    changed = 0
    for video in videos:
        first = video.entry.segment[0] if video.entry.segment else 1
        annotation = content["database"][video.entry.video_id].setdefault("annotations", {})
        segment = [min(first, video.n_frames), video.n_frames + 1]
        changed += annotation.get("segment") != segment
        annotation["segment"] = segment
    if changed:
        try:
            shutil.copy2(path, path.with_name(f"{path.name}.bak"))
        except OSError as error:
            raise UserError(f"{path}.bak: can't be written: {error.strerror}") from None
        write_json(path, content)
    return changed


def report(findings: Sequence[Finding]) -> bool:
    """Print the findings by kind; whether anything is wrong."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for kind, text in findings:
        kinds[kind].append(text)
    for kind, texts in kinds.items():
        print(f"{'note' if kind in NOTES else 'wrong'}: {len(texts)} {kind}")
        for text in texts[:NAMED]:
            print(f"  {text}")
        if len(texts) > NAMED:
            print(f"  and {len(texts) - NAMED} more")
    return any(kind not in NOTES for kind in kinds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="util_scripts.check_dataset", description=__doc__)
    parser.add_argument("index", type=Path, help="index JSON")
    parser.add_argument("frames_dir", type=Path, help="folder of the JPG frames")
    parser.add_argument("--all", action="store_true", help="decode every frame, not a sample")
    parser.add_argument("--fix", action="store_true", help="write the frame counts found here")
    options = parser.parse_args(argv)
    index = read_index(options.index)
    if not options.frames_dir.is_dir():
        raise UserError(f"{options.frames_dir}: no such folder of frames")
    videos, findings = check_frames(index, options.frames_dir)
    findings += check_labels(index)
    findings += check_sides(index, videos)
    findings += check_pixels(videos, look_at_all=options.all)
    is_wrong = report(findings)
    subsets = Counter(entry.subset for entry in index.entries)
    told = ", ".join(f"{count} {subset}" for subset, count in sorted(subsets.items()))
    print(f"{len(index.labels)} labels; videos: {told}; {len(videos)} have frames")
    if options.fix:
        print(f"{options.index}: {fix_counts(options.index, videos)} frame counts rewritten")
    return 1 if is_wrong else 0


if __name__ == "__main__":
    sys.exit(run(main))
