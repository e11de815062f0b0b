"""Training and validation videos of a folder: by subset folders, or drawn at random."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random

from datasets.index import SUBSETS
from datasets.index_writer import Video
from errors import UserError
from utils.text import join_few


def find_subsets(jpg_dir: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return {"train": "training", …} if the top folders are subsets, {} if they are classes.

    One such name among others is a class (a train is also a vehicle); several raise UserError.
    """
    tops = sorted({path.partition("/")[0] for path in paths})
    subsets = {top: SUBSETS[top.lower()] for top in tops if top.lower() in SUBSETS}
    if len(subsets) == len(tops):
        return subsets
    if len(set(subsets.values())) > 1:
        others = [top for top in tops if top not in subsets]
        raise UserError(
            f"{jpg_dir}: has subset folders ({', '.join(subsets)}) beside others "
            f"({join_few(others)}); move the others away, or use class folders only"
        )
    return {}


def videos_of_subsets(
    jpg_dir: Path, paths: Iterable[str], subsets: Mapping[str, str]
) -> list[Video]:
    """Make videos of SUBSET/CLASS/VIDEO, and of test/VIDEO, which has no label.

    Labelled test videos become validation videos if there is no validation folder.
    """
    videos = []
    for path in sorted(paths):
        top, *below = path.split("/")
        subset = subsets[top]
        if len(below) >= 2:
            videos.append(Video(subset, below[0], path))
        elif below and subset == "testing":
            videos.append(Video(subset, None, path))
        else:
            raise UserError(f"{jpg_dir / path}: has frames, but is not {top}/CLASS/VIDEO")
    return test_as_validation(videos, is_told=True)


def test_as_validation(videos: Sequence[Video], *, is_told: bool) -> list[Video]:
    """Turn labelled test videos into validation videos if there are none, and print that if
    `is_told`."""
    is_tested = any(video.subset == "testing" and video.label is not None for video in videos)
    if not is_tested or any(video.subset == "validation" for video in videos):
        return list(videos)
    if is_told:
        print("there are no videos in val: the test videos become validation videos")
    return [
        video._replace(subset="validation")
        if video.subset == "testing" and video.label is not None
        else video
        for video in videos
    ]


def videos_of_classes(jpg_dir: Path, paths: Iterable[str]) -> list[Video]:
    """Make videos of CLASS/VIDEO, all of them in training until they are split."""
    videos = []
    for path in sorted(paths):
        label, slash, _ = path.partition("/")
        if not slash:
            raise UserError(f"{jpg_dir / path}: has frames, but is not CLASS/VIDEO")
        videos.append(Video("training", label, path))
    return videos


def draw_videos(
    videos: Sequence[Video], source_of: Mapping[str, str], *, fraction: float, seed: int
) -> list[Video]:
    """Split videos at random, except test videos; those of one source stay together.

    `source_of` maps the path of each video to its source.
    """
    drawn = draw_validation(count_sources(videos, source_of), fraction=fraction, seed=seed)
    return assign_subsets(videos, source_of, drawn)


def count_sources(videos: Iterable[Video], source_of: Mapping[str, str]) -> dict[str, Counter[str]]:
    """Map each source to its number of videos per class, without test videos."""
    sources: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for video in videos:
        if video.subset != "testing" and video.label is not None:
            sources[source_of[video.path]][video.label] += 1
    return dict(sources)


def assign_subsets(
    videos: Sequence[Video], source_of: Mapping[str, str], validation: Collection[str]
) -> list[Video]:
    """Put the sources in `validation` into validation, all others into training; test videos
    remain."""
    names = {True: "validation", False: "training"}
    return [
        video
        if video.subset == "testing"
        else video._replace(subset=names[source_of[video.path] in validation])
        for video in videos
    ]


def find_sources(paths: Sequence[str], group_by: str | None) -> dict[str, str]:
    """Map each video to its source: the text that `group_by` matches, else the video itself."""
    if group_by is None:
        return {path: path for path in paths}
    try:
        pattern = re.compile(group_by)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"--group_by {group_by!r}: not a regular expression: {error}") from None
    matches = {path: pattern.search(path.partition("/")[2]) for path in paths}
    # The leading slash keeps the name of a source apart from every path below JPG_DIR.
    sources = {
        path: path if match is None else "/" + "/".join(match.groups("") or (match[0],))
        for path, match in matches.items()
    }
    unmatched = [path for path, match in matches.items() if match is None]
    if len(unmatched) == len(paths):
        raise UserError(f"--group_by {group_by!r}: matches none of the videos: {join_few(paths)}")
    if unmatched:
        print(
            f"--group_by matches nothing in {len(unmatched)} videos; each counts as a source of "
            f"its own: {join_few(unmatched)}"
        )
    print(f"{len(set(sources.values()))} sources of {len(paths)} videos")
    return sources


def draw_validation(sources: Mapping[str, Counter[str]], *, fraction: float, seed: int) -> set[str]:
    """Draw the validation sources so that each class comes close to `fraction` of its videos.

    `sources` maps each source to its number of videos per class. Every class keeps at least one
    training video, and gets a validation video if its sources allow it.
    """
    totals: Counter[str] = Counter()
    for counts in sources.values():
        totals.update(counts)
    wanted = {label: max(1, round(fraction * n)) for label, n in totals.items()}
    have: Counter[str] = Counter()

    def fits(source: str) -> bool:
        return all(have[label] + n < totals[label] for label, n in sources[source].items())

    def gain(source: str) -> float:
        """How much closer the classes come to their share, relative to the size of the class."""
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
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for source in order:
        for label in sources[source]:
            holders[label].append(source)
    for label in sorted(totals):
        if have[label]:
            continue
        rest = [source for source in holders[label] if source not in drawn and fits(source)]
        if rest:
            smallest = min(rest, key=lambda source: sources[source].total())
            drawn.add(smallest)
            have.update(sources[smallest])
    return drawn


def one_sided_classes(videos: Iterable[Video]) -> dict[str, list[str]]:
    """Return {"training": classes with training videos only, "validation": …}."""
    sides: dict[str, set[str]] = {"training": set(), "validation": set()}
    for video in videos:
        if video.label is not None and video.subset in sides:
            sides[video.subset].add(video.label)
    training, validation = sides.values()
    return {"training": sorted(training - validation), "validation": sorted(validation - training)}
