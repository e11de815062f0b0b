"""The videos that the user names: a folder of class folders, or a table (CSV)."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path, PurePath

from datasets.frame_locations import FrameLocator
from datasets.index_checks import guess_recordings
from datasets.listed_videos import (
    NEEDED,
    OPTIONAL,
    ListedVideo,
    read_listed_videos,
    with_paths,
)
from datasets.split import find_subsets
from errors import UserError
from media.extraction import ALIAS, Job
from media.jobs import find_jobs
from media.manifest import target_of
from media.walking import is_hidden
from utils.files import atomic_write
from utils.spreadsheet import spellings

COLUMNS = (*NEEDED, *OPTIONAL)
SHORT_NAMES = {"training": "train", "validation": "val", "testing": "test", "": ""}


@dataclass(frozen=True)
class Found:
    """Videos below `folder`; `left_out` maps the others to the reason. `is_grouped_by_names` means
    that their groups are guessed, `cut_up` maps classes to their only recording, by the names,
    whose videos are not kept together."""

    folder: Path
    videos: tuple[ListedVideo, ...]
    left_out: dict[str, str]
    is_grouped_by_names: bool = False
    cut_up: Mapping[str, str] = field(default_factory=dict)

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
    listed, left_out = _list_files(folder, out, only=None)
    names = [PurePath(name).as_posix() for name in listed]
    subsets = find_subsets(folder, [name for name in names if "/" in name])
    videos = []
    for name in names:
        top, *below = name.split("/")
        labels = below[:-1] if top in subsets else [top, *below][:-1]
        if labels:
            videos.append(ListedVideo(0, name, labels[0], subsets.get(top, ""), "", 0, None))
        else:
            left_out[name] = "not in the folder of a class"
    return Found(folder, tuple(videos), left_out)


def _of_table(table: Path, out: Path, encoding: str | None) -> Found:
    listed = read_listed_videos(table, encoding=encoding)
    locator, left_out, files = FrameLocator("video"), dict[str, str](), dict[str, Path]()
    for video in listed:
        row = f"line {video.line}: {video.path}"
        if video.label is None:
            left_out[row] = "has no label"
        elif (file := _find_file(locator, table.parent, video.path)) is None:
            left_out[row] = f"no such file below {table.parent}"
        else:
            files[video.path] = file
    if not files:
        return Found(table.parent, (), left_out)
    root = _common_folder(table, list(files.values()))
    names = {path: file.relative_to(root).as_posix() for path, file in files.items()}
    usable, reasons = _list_files(root, out, only={str(PurePath(n)) for n in names.values()})
    known = {PurePath(name).as_posix() for name in usable}
    kept = []
    for video in listed:
        name = names.get(video.path)
        if name in known:
            kept.append(video)
        elif name is not None and name not in reasons:
            left_out[f"line {video.line}: {video.path}"] = _why_not_listed(
                files[video.path], root, out
            )
    return Found(root, tuple(with_paths(table, kept, names)), left_out | reasons)


def _find_file(locator: FrameLocator, parent: Path, path: str) -> Path | None:
    for spelling in spellings(path):
        folder, name = os.path.split(parent / spelling)
        if (file := locator.find(folder, name)) is not None:
            return Path(os.path.abspath(file))
    return None


def _common_folder(table: Path, files: Sequence[Path]) -> Path:
    """Return the folder that holds all files. Raises UserError for a whole drive, or several."""
    try:
        root = Path(os.path.commonpath([file.parent for file in files]))
    except ValueError:  # several drives
        root = Path(files[0].anchor)
    if root == Path(root.anchor):
        raise UserError(
            f"{table}: the videos have no folder in common, for example {files[0]} and "
            f"{files[-1]}; put them, or links to them, below one folder"
        )
    return root


def _why_not_listed(file: Path, root: Path, out: Path) -> str:
    if file.is_relative_to(out):
        return "lies in the folder of the run (--out)"
    if any(map(is_hidden, file.relative_to(root).parts)):
        return "is hidden: a part of its path begins with a dot"
    if (real := os.path.realpath(file)) != str(file):
        return f"is reached by a link; list it as {real}"
    return "is spelled otherwise on disk"


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
    given. A class that has a single recording is cut up, to have videos on both sides."""
    if found.is_split or any(video.group for video in found.videos):
        return found
    pairs = [
        (target_of(video.path).rpartition("/")[2], video.label or "") for video in found.videos
    ]
    groups = guess_recordings(pairs)
    of_label: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)  # {(group, path)}
    for video, group in zip(found.videos, groups, strict=True):
        of_label[video.label or ""].add((group, video.path))
    cut_up = {
        label: next(iter(members))[0]
        for label, members in of_label.items()
        if len(members) > 1 and len({group or f"/{path}" for group, path in members}) == 1
    }
    videos = tuple(
        replace(video, group="" if video.label in cut_up else group)
        for video, group in zip(found.videos, groups, strict=True)
    )
    paths_of: defaultdict[str, set[str]] = defaultdict(set)
    for video in videos:
        paths_of[video.group].add(video.path)
    is_grouped = any(group and len(paths) > 1 for group, paths in paths_of.items())
    return replace(
        found,
        videos=videos if is_grouped else found.videos,
        is_grouped_by_names=is_grouped,
        cut_up=cut_up,
    )


def write_table(path: Path, videos: Iterable[ListedVideo]) -> None:
    """Write the videos as a table that csv_json and generate_video_jpgs --only read."""
    with atomic_write(path) as part:
        part.write_bytes(table_of(list(videos)).encode("utf-8"))


def table_of(videos: Sequence[ListedVideo]) -> str:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for v in videos:
        times = [_exact(v.start) if v.start else "", "" if v.end is None else _exact(v.end)]
        rows.writerow([v.path, v.label, SHORT_NAMES[v.subset], v.group, *times])
    return text.getvalue()


def _exact(seconds: float) -> str:
    """Write a number so that reading it gives the same one, without an exponent."""
    return f"{Decimal(repr(seconds)):f}"
