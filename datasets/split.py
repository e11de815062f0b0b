"""Training and validation videos of a folder: by subset folders, or drawn at random."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    test_subset = "testing" if "validation" in subsets.values() else "validation"
    videos = []
    for path in sorted(paths):
        top, *below = path.split("/")
        subset = subsets[top]
        if len(below) >= 2:
            videos.append(Video(test_subset if subset == "testing" else subset, below[0], path))
        elif below and subset == "testing":
            videos.append(Video(subset, None, path))
        else:
            raise UserError(f"{jpg_dir / path}: has frames, but is not {top}/CLASS/VIDEO")
    if test_subset == "validation" and any(video.subset == test_subset for video in videos):
        print("there is no folder val: the test videos become validation videos")
    return videos


def draw_videos(
    jpg_dir: Path, paths: Iterable[str], *, fraction: float, seed: int, group_by: str | None
) -> list[Video]:
    """Split the videos CLASS/VIDEO at random; videos of one source stay together."""
    paths = sorted(paths)
    for path in paths:
        if "/" not in path:
            raise UserError(f"{jpg_dir / path}: has frames, but is not CLASS/VIDEO")
    source_of = find_sources(paths, group_by)
    sources: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for path in paths:
        sources[source_of[path]][path.partition("/")[0]] += 1
    drawn = draw_validation(sources, fraction=fraction, seed=seed)
    return [
        Video(
            "validation" if source_of[path] in drawn else "training", path.partition("/")[0], path
        )
        for path in paths
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
    for label in sorted(totals):
        if have[label]:
            continue
        rest = [s for s in order if sources[s][label] and s not in drawn and fits(s)]
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
