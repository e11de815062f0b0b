"""The index of anyone's own frames: JPG_DIR/train/CLASS/VIDEO and JPG_DIR/val/CLASS/VIDEO, or
JPG_DIR/CLASS/VIDEO with a split drawn here. There may be more folders between CLASS and VIDEO."""

import argparse
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from tqdm import tqdm

from datasets.hdf5 import HDF5_SUFFIX
from datasets.index import SUBSETS
from datasets.indexing import (
    NO_FRAMES,
    Survey,
    Video,
    judge_counts,
    make_entries,
    print_missing,
    print_named,
    write_and_tell,
)
from errors import UserError
from evaluation.results import some
from media.frame_names import FrameCount, count_frames, is_picture_name, why_no_frames
from media.manifest import FAILED
from media.verdicts import why_no_video
from media.walking import UNREADABLE, Visit, walk
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.outputs import INDEX
from utils.reading import shown_name

VAL_FRACTION = 0.2
SEED = 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.folder_json", description=__doc__)
    parser.add_argument("jpg_dir", type=INPUT, help="frames that generate_video_jpgs wrote")
    parser.add_argument("dst_json", type=OutputPath(INDEX), help="the index to write")
    parser.add_argument(
        "--val_fraction", type=float, help=f"share of validation videos per class ({VAL_FRACTION})"
    )
    parser.add_argument("--seed", type=int, help=f"seed of the split ({SEED})")
    parser.add_argument(
        "--group_by",
        metavar="REGEX",
        help="what it finds in a video's path below CLASS (its parenthesised parts, if it has any) "
        "names the video's source; videos of one source stay on one side",
    )
    options = parser.parse_args(argv)
    survey = walk_frames(options.jpg_dir)
    subsets = find_subsets(options.jpg_dir, survey)
    if subsets:
        _refuse_split_flags(options, subsets)
        videos = sided_videos(options.jpg_dir, survey, subsets)
    else:
        videos = _draw_sides(options, survey)
    print_missing(survey)
    _print_one_sided(videos)
    labels = sorted({video.label for video in videos if video.label is not None})
    write_and_tell(options.dst_json, labels, make_entries(videos, survey))
    return 0


def walk_frames(jpg_dir: Path) -> Survey:
    """Count the frames of every folder below JPG_DIR; a folder without frames is missing where
    it has no folders either. Folders whose name begins with a dot are unfinished extractions."""
    if not jpg_dir.is_dir():
        raise UserError(f"{jpg_dir}: no such folder of frames")
    counts: dict[str, FrameCount] = {}
    missing: dict[str, str] = {}
    hdf5: dict[str, Path] = {}
    without: list[Visit] = []
    passed_over: dict[str, str] = {}
    for visit in tqdm(walk(jpg_dir), desc="counting frames", unit="folder", disable=None):
        here = visit.path.relative_to(jpg_dir)
        passed_over |= {(here / name).as_posix(): reason for name, reason in _skipped(visit)}
        found = [name for name in visit.files if name.endswith(HDF5_SUFFIX)]
        hdf5 |= {
            (here / name.removesuffix(HDF5_SUFFIX)).as_posix(): visit.path / name for name in found
        }
        count = count_frames(visit.files)
        if count != NO_FRAMES:
            counts[here.as_posix()] = count
        elif not found:
            without.append(visit)
            if not visit.folders:
                missing[here.as_posix()] = why_no_frames(visit.files)
    print_named("files and folders are passed over:", passed_over)
    if not hdf5 and not any(count.n_frames for count in counts.values()):
        return _survey_videos(jpg_dir, counts, missing, without)
    return judge_counts(jpg_dir, counts, missing, hdf5)


def _survey_videos(
    jpg_dir: Path,
    counts: Mapping[str, FrameCount],
    missing: Mapping[str, str],
    folders: Sequence[Visit],
) -> Survey:
    """The same where no frames are, but maybe the videos themselves."""
    videos: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for visit in folders:
        here = visit.path.relative_to(jpg_dir)
        for name, file in _without_suffix(visit).items():
            verdict = why_no_video(file)
            if verdict is None:
                videos[(here / name).as_posix()] = file
            elif verdict.status == FAILED:
                failed[(here / name).as_posix()] = verdict.reason
    if videos:
        holders = {os.path.dirname(path) or "." for path in (*videos, *failed)}
        missing = {path: why for path, why in missing.items() if path not in holders} | failed
    return judge_counts(jpg_dir, counts, missing, videos)


def _skipped(visit: Visit) -> Iterator[tuple[str, str]]:
    """(name, reason) of what is not looked at. Raises UserError for what can't be read."""
    for name, reason, _ in visit.skipped:
        if UNREADABLE in reason:
            raise UserError(f"{visit.path / name}: {reason}")
        yield name, reason


def _without_suffix(visit: Visit) -> dict[str, Path]:
    """Files that may be videos, by their name without suffix where that tells them apart."""
    names = [name for name in visit.files if not is_picture_name(name)]
    stems = Counter(os.path.splitext(name)[0] for name in names)
    return {
        stem if stems[stem := os.path.splitext(name)[0]] == 1 else name: visit.path / name
        for name in names
    }


def find_subsets(jpg_dir: Path, survey: Survey) -> dict[str, str]:
    """{"train": "training", …} where the folders of JPG_DIR are subsets, {} where they are classes.

    One such name among others is a class (a train is a vehicle, too); several are a mistake.
    """
    tops = sorted({path.partition("/")[0] for path in survey.n_frames})
    subsets = {top: SUBSETS[top.lower()] for top in tops if top.lower() in SUBSETS}
    if len(subsets) == len(tops):
        return subsets
    if len(set(subsets.values())) > 1:
        others = [top for top in tops if top not in subsets]
        raise UserError(
            f"{jpg_dir}: has folders of subsets ({', '.join(subsets)}) beside others "
            f"({some(others)}); move the others away, or give JPG_DIR class folders alone"
        )
    return {}


def sided_videos(jpg_dir: Path, survey: Survey, subsets: Mapping[str, str]) -> list[Video]:
    """The videos of SUBSET/CLASS/VIDEO, and of test/VIDEO, which have no label.

    Labelled test videos are the validation side where no folder is.
    """
    stand_in = "testing" if "validation" in subsets.values() else "validation"
    videos = []
    for path in sorted(survey.n_frames):
        top, *below = path.split("/")
        subset = subsets[top]
        if len(below) >= 2:
            videos.append(Video(stand_in if subset == "testing" else subset, below[0], path))
        elif below and subset == "testing":
            videos.append(Video(subset, None, path))
        else:
            raise UserError(f"{jpg_dir / path}: has frames, but is not {top}/CLASS/VIDEO")
    if stand_in == "validation" and any(video.subset == stand_in for video in videos):
        print("there is no folder val: the test videos are the index's validation videos")
    return videos


def _refuse_split_flags(options: argparse.Namespace, subsets: Mapping[str, str]) -> None:
    given = [
        f"--{name}"
        for name in ("val_fraction", "seed", "group_by")
        if getattr(options, name) is not None
    ]
    if given:
        raise UserError(
            f"{', '.join(given)}: {options.jpg_dir} is split already, into {', '.join(subsets)}"
        )


def _draw_sides(options: argparse.Namespace, survey: Survey) -> list[Video]:
    """The videos of CLASS/VIDEO, each on the side that is drawn for its source."""
    fraction = VAL_FRACTION if options.val_fraction is None else options.val_fraction
    if not 0 < fraction < 1:
        raise UserError(f"--val_fraction {fraction}: must lie between 0 and 1")
    paths = sorted(survey.n_frames)
    for path in paths:
        if "/" not in path:
            raise UserError(f"{options.jpg_dir / path}: has frames, but is not CLASS/VIDEO")
    source_of = _find_sources(paths, options.group_by)
    sources: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for path in paths:
        sources[source_of[path]][path.partition("/")[0]] += 1
    seed = SEED if options.seed is None else options.seed
    drawn = draw_validation(sources, fraction=fraction, seed=seed)
    return [
        Video(
            "validation" if source_of[path] in drawn else "training", path.partition("/")[0], path
        )
        for path in paths
    ]


def _find_sources(paths: Sequence[str], group_by: str | None) -> dict[str, str]:
    """The source of each video; without `group_by`, or where it finds nothing, the video itself."""
    if group_by is None:
        return {path: path for path in paths}
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(f"--group_by {group_by!r}: not a regular expression: {error}") from None
    matches = {path: pattern.search(path.partition("/")[2]) for path in paths}
    # A source's name begins with a slash, which no path below JPG_DIR does.
    sources = {
        path: path if match is None else "/" + "/".join(match.groups("") or (match[0],))
        for path, match in matches.items()
    }
    unmatched = [path for path, match in matches.items() if match is None]
    if len(unmatched) == len(paths):
        raise UserError(f"--group_by {group_by!r}: found in none of the videos: {some(paths)}")
    if unmatched:
        print(
            f"--group_by finds no source in {len(unmatched)} videos, "
            f"each is its own: {some(unmatched)}"
        )
    print(f"{len(set(sources.values()))} sources of {len(paths)} videos")
    return sources


def draw_validation(sources: Mapping[str, Counter[str]], *, fraction: float, seed: int) -> set[str]:
    """Draw sources for validation so that each class comes near its share of videos there.

    `sources` holds the number of videos per class of each source. A class keeps at least one
    training video, and gets a validation video if its sources allow.
    """
    totals: Counter[str] = Counter()
    for counts in sources.values():
        totals.update(counts)
    wanted = {label: max(1, round(fraction * n)) for label, n in totals.items()}
    have: Counter[str] = Counter()

    def fits(source: str) -> bool:
        return all(have[label] + n < totals[label] for label, n in sources[source].items())

    def gain(source: str) -> float:
        """How much nearer the classes come to their share, in squared videos per video."""
        return sum(
            ((have[label] - wanted[label]) ** 2 - (have[label] + n - wanted[label]) ** 2)
            / totals[label]
            for label, n in sources[source].items()
        )

    order = sorted(sources)
    Random(seed).shuffle(order)
    drawn = set()
    for source in order:
        if fits(source) and gain(source) > 0:
            drawn.add(source)
            have.update(sources[source])
    for label in sorted(totals):
        if have[label]:
            continue
        rest = [s for s in order if sources[s][label] and s not in drawn and fits(s)]
        if rest:
            smallest = min(rest, key=lambda source: sources[source].total())
            drawn.add(smallest)
            have.update(sources[smallest])
    return drawn


def _print_one_sided(videos: Sequence[Video]) -> None:
    """Name the classes that have training or validation videos only."""
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for video in videos:
        if video.label is not None and video.subset != "testing":
            sides[video.subset].add(video.label)
    training, validation = sides["training"], sides["validation"]
    if not validation:
        print("there are no validation videos: train with --no_val")
    elif not training:
        print("there are no training videos: main.py needs --no_train")
    else:
        for side, labels in (
            ("training", training - validation),
            ("validation", validation - training),
        ):
            if labels:
                names = ", ".join(map(shown_name, sorted(labels)))
                print(f"{len(labels)} classes have {side} videos only: {names}")


if __name__ == "__main__":
    sys.exit(run(main))
