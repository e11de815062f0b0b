"""The videos that the user names: a folder of class folders, or a table (CSV)."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from datasets.frame_locations import FrameLocator
from datasets.index_checks import guess_recordings
from datasets.listed_videos import NEEDED, OPTIONAL, ListedVideo, read_listed_videos
from datasets.split import find_subsets
from errors import UserError
from media.extraction import ALIAS, Job
from media.jobs import find_jobs
from media.manifest import target_of
from utils.files import atomic_write

COLUMNS = (*NEEDED, *OPTIONAL)
SHORT_NAMES = {"training": "train", "validation": "val", "testing": "test", "": ""}


@dataclass(frozen=True)
class Found:
    """Videos below `folder`; `left_out` maps the others to the reason. `is_grouped_by_names` means
    that their groups are guessed."""

    folder: Path
    videos: tuple[ListedVideo, ...]
    left_out: dict[str, str]
    is_grouped_by_names: bool = False

    @property
    def paths(self) -> list[str]:
        return list(dict.fromkeys(video.path for video in self.videos))

    @property
    def is_split(self) -> bool:
        return any(video.subset for video in self.videos)

    def without(self, reasons: dict[str, str]) -> "Found":
        """Leave out more videos, by path."""
        kept = tuple(video for video in self.videos if video.path not in reasons)
        return replace(self, videos=kept, left_out={**self.left_out, **reasons})


def find_videos(source: Path, out: Path, *, encoding: str | None = None) -> Found:
    """List the videos of a folder or table, except below `out`, without looking into them.

    Raises UserError if there are none.
    """
    found = _of_folder(source, out) if source.is_dir() else _of_table(source, out, encoding)
    if not found.videos:
        reasons = [f"{path}: {reason}" for path, reason in found.left_out.items()]
        raise UserError(
            f"{source}: no videos in class folders, such as {source}/CLASS/VIDEO.mp4"
            + (f" (left out, for example: {reasons[0]})" if reasons else "")
        )
    return found


def _of_folder(folder: Path, out: Path) -> Found:
    names, left_out = _list_files(folder, out, only=None)
    subsets = find_subsets(folder, names)
    videos = []
    for name in names:
        top, *below = PurePath(name).parts
        labels = below[:-1] if top in subsets else [top, *below][:-1]
        if labels:
            subset = subsets.get(top, "")
            videos.append(ListedVideo(0, PurePath(name).as_posix(), labels[0], subset, "", 0, None))
        else:
            left_out[name] = "not in the folder of a class"
    return Found(folder, tuple(videos), left_out)


def _of_table(table: Path, out: Path, encoding: str | None) -> Found:
    listed = read_listed_videos(table, encoding=encoding)
    locator, left_out, files = FrameLocator("video"), dict[str, str](), dict[str, Path]()
    for video in listed:
        path = video.path.strip().replace("\\", "/")
        for spelling in (video.path, path):
            folder, name = os.path.split(table.parent / spelling)
            if (file := locator.find(folder, name)) is not None:
                files[video.path] = Path(os.path.abspath(file))
                break
        else:
            left_out[f"line {video.line}: {video.path}"] = f"no such file below {table.parent}"
    if not files:
        return Found(table.parent, (), left_out)
    root = Path(os.path.commonpath([file.parent for file in files.values()]))
    names = {path: file.relative_to(root).as_posix() for path, file in files.items()}
    usable, reasons = _list_files(root, out, only={str(PurePath(n)) for n in names.values()})
    known = {PurePath(name).as_posix() for name in usable}
    videos = [
        replace(video, path=names[video.path])
        for video in listed
        if names.get(video.path) in known and video.label is not None
    ]
    return Found(root, tuple(videos), left_out | reasons)


def _list_files(folder: Path, out: Path, only: set[str] | None) -> tuple[list[str], dict[str, str]]:
    """Return the files that extraction would try, and why it would not try others."""
    names, left_out = [], {}
    for job in find_jobs(folder, out, only=only):
        if isinstance(job, Job):
            names.append(job.name)
        elif job.verdict.status != ALIAS:
            left_out[job.name] = job.verdict.reason
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            left_out[name] = "its name is not UTF-8 text; rename it"
    return [name for name in names if name not in left_out], left_out


def group_by_names(found: Found) -> Found:
    """Guess from the names which videos are of the same recording, if no group and no split is
    given, and if every class keeps videos on both sides then."""
    if found.is_split or any(video.group for video in found.videos):
        return found
    pairs = [
        (target_of(video.path).rpartition("/")[2], video.label or "") for video in found.videos
    ]
    videos = tuple(
        replace(video, group=group)
        for video, group in zip(found.videos, guess_recordings(pairs), strict=True)
    )
    sources = {(video.label, video.group or f"/{video.path}") for video in videos}
    per_class = Counter(label for label, _ in sources)
    largest = max(Counter(video.group for video in videos if video.group).values(), default=0)
    if largest < 2 or min(per_class.values()) < 2 or largest > len(videos) / 2:
        return found
    return replace(found, videos=videos, is_grouped_by_names=True)


def write_table(path: Path, videos: Iterable[ListedVideo]) -> None:
    """Write the videos as a table that csv_json and generate_video_jpgs --only read."""
    with atomic_write(path) as part:
        part.write_bytes(table_of(list(videos)).encode("utf-8"))


def table_of(videos: Sequence[ListedVideo]) -> str:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for v in videos:
        times = [f"{v.start:g}" if v.start else "", "" if v.end is None else f"{v.end:g}"]
        rows.writerow([v.path, v.label, SHORT_NAMES[v.subset], v.group, *times])
    return text.getvalue()
