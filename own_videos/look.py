"""Look at the user's videos: list them, leave out what can't be used, say what is odd."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from datasets.folds import draw_folds
from datasets.index_checks import guess_recordings
from datasets.index_writer import Video
from datasets.listed_index import SLACK
from datasets.listed_videos import ListedVideo, groups_on_both_sides, raise_faults, sources_of
from datasets.split import draw_videos, test_as_validation
from datasets.split_command import SEED
from datasets.survey import print_list
from errors import UserError
from media.manifest import target_of
from own_videos.checks import Opened, leave_out_copies, open_videos, seconds_of
from own_videos.found import SHORT_NAMES, Found, group_by_names
from own_videos.plan import CLIP_FRAMES, Data, val_fraction_for
from utils.reading import shown_name
from utils.text import first_few, join_few

USUAL_RATE = 25.0  # frames per second of videos that do not say


def look_into(found: Found) -> tuple[Found, dict[str, Opened]]:
    """Leave out broken files and copies, and guess which videos belong together.

    Raises UserError that names the rows of parts outside of their video.
    """
    found, opened = open_videos(found)
    _check_parts(found, opened)
    return group_by_names(leave_out_copies(found)), opened


def _check_parts(found: Found, opened: Mapping[str, Opened]) -> None:
    faults = []
    for video in found.videos:
        seconds = opened[video.path].seconds if video.path in opened else None
        if seconds is None:
            continue
        place = f"line {video.line}: {video.path}: the part"
        if video.start >= seconds:
            faults.append(f"{place} starts at {video.start:g} s, but the video lasts {seconds:g} s")
        elif video.end is not None and video.end > seconds + SLACK:
            faults.append(f"{place} ends at {video.end:g} s, but the video lasts {seconds:g} s")
    raise_faults(faults)


def describe(found: Found) -> list[str]:
    """Return the lines that say what there is: videos per class and side, groups, what is odd."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for video in found.videos:
        counts[video.label or ""][SHORT_NAMES[video.subset]] += 1
    of_parts = ", parts of videos" if any(video.is_part for video in found.videos) else ""
    lines = [f"{found.folder}: {len(found.videos)} videos of {len(counts)} classes{of_parts}"]
    for label in sorted(counts):
        sides = ", ".join(f"{n} {side}".strip() for side, n in sorted(counts[label].items()))
        lines.append(f"  {shown_name(label)}: {sides}")
    groups = {video.group for video in found.videos if video.group}
    if found.is_grouped_by_names:
        lines.append(
            f"{len(groups)} recordings, judging by the names, each of which stays on one side: "
            f"{join_few(sorted(groups))}"
        )
    elif groups:
        stay = "" if found.is_split else ", each of which stays on one side"
        lines.append(f"{len(groups)} groups{stay}")
    return lines


def print_findings(found: Found) -> None:
    """Print what there is and what is left out."""
    print_list("files are left out:", dict(sorted(found.left_out.items())))
    print("\n".join([*first_few(describe(found), 40), *warnings_of(found)]))


def warnings_of(found: Found) -> tuple[str, ...]:
    """Return sentences on why the accuracy will be too high."""
    warnings = []
    if found.cut_up:
        classes = join_few(f"{label} ({name})" for label, name in sorted(found.cut_up.items()))
        warnings.append(
            f"the accuracy will be too high: all videos of {classes} seem to be of one recording, "
            "judging by the names, which is therefore both in training and in validation; add "
            "videos of other recordings"
        )
    if found.is_split and (shared := _shared_sources(found.videos)):
        warnings.append(
            f"{len(shared)} recordings or groups are both in training and in validation or test, "
            "judging by the names or the column group; if so, the accuracy is too high: "
            f"{join_few(shared)}"
        )
    return tuple(warnings)


def _shared_sources(videos: Sequence[ListedVideo]) -> list[str]:
    names = [(target_of(video.path).rpartition("/")[2], video.label or "") for video in videos]
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for video, recording in zip(videos, guess_recordings(names), strict=True):
        if recording:
            sides[recording].add(video.subset)
    shared = {name for name, seen in sides.items() if "training" in seen and len(seen) > 1}
    return sorted(shared | set(groups_on_both_sides(videos)))


def check_enough(found: Found, n_folds: int) -> None:
    """Raise UserError for videos that nothing can be learned from."""
    if not found.videos:
        reasons = [f"{path}: {reason}" for path, reason in found.left_out.items()]
        raise UserError(
            f"{found.folder}: no videos in class folders can be used: "
            f"{'; '.join(first_few(reasons, 3))}"
        )
    labels = {video.label for video in found.videos}
    if len(labels) < 2:
        raise UserError(
            f"{found.folder}: all videos are of one class; put those of each class into a folder "
            "of its own"
        )
    if n_folds and found.is_split:
        raise UserError(
            "--folds: the videos are split into training and validation already; leave it out, or "
            "put the class folders together"
        )
    subsets = Counter(video.subset for video in split_of(found, n_folds))
    if not subsets["validation"]:
        raise UserError(
            f"{found.folder}: too few videos: at least one class needs two, of different "
            "recordings, so that one can be held out"
        )
    if not subsets["training"]:
        raise UserError(f"{found.folder}: there are no training videos, only validation videos")


def split_of(found: Found, n_folds: int) -> list[Video]:
    """Split the videos, or make the first fold, as csv_json will."""
    videos = [Video(v.subset or "training", v.label, v.path) for v in found.videos]
    if found.is_split:
        return test_as_validation(videos, is_told=False)  # csv_json will tell
    sources = sources_of(found.videos)
    if n_folds:
        return draw_folds(videos, sources, n_folds=n_folds, seed=SEED)[0]
    fraction = val_fraction_for(len(videos))
    return draw_videos(videos, sources, fraction=fraction, seed=SEED)


def data_of(found: Found, opened: dict[str, Opened], n_folds: int) -> Data:
    """Return the numbers that the plan depends on."""
    subsets = [video.subset for video in split_of(found, n_folds)]
    rates = [o.rate for o in opened.values() if o.rate]
    rate = median(rates) if rates else USUAL_RATE
    frames = [_frames_of(video, opened, rate) for video in found.videos]
    tested = [n for n, subset in zip(frames, subsets, strict=True) if subset == "validation"]
    return Data(
        n_train=subsets.count("training"),
        n_val=len(tested),
        is_split=found.is_split,
        n_windows=sum(max(1, math.ceil(n / CLIP_FRAMES)) for n in tested),
        median_frames=median(frames),
        rate=rate,
        seconds=seconds_of(found.videos, opened),
    )


def _frames_of(video: ListedVideo, opened: dict[str, Opened], usual_rate: float) -> float:
    known = opened.get(video.path, Opened(None, None))
    rate = known.rate or usual_rate
    seconds = known.seconds or 0.0
    end = seconds if video.end is None else min(video.end, seconds or video.end)
    return max(1.0, (end - video.start) * rate)
