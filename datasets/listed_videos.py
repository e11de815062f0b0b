"""The videos that a user's table lists: path and label, optionally split, group, start and end."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from datasets.index import SUBSETS
from errors import UserError
from utils.reading import bad_name, shown, shown_name
from utils.spreadsheet import Row, read_spreadsheet
from utils.text import first_few

NEEDED = ("path", "label")
OPTIONAL = ("split", "group", "start", "end")
CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?|[.,]\d+)\s*s?")
MAX_FAULTS = 20  # rows that an error names


@dataclass(frozen=True)
class ListedVideo:
    """A row: a video, or the part of it between two times in seconds; `end` is None for its end.

    `subset` is "" and `group` is "" where the table leaves it open; `label` is None for test videos
    without one.
    """

    line: int
    path: str
    label: str | None
    subset: str
    group: str
    start: float
    end: float | None

    @property
    def is_part(self) -> bool:
        return self.start > 0 or self.end is not None


def read_listed_videos(path: Path, *, encoding: str | None = None) -> list[ListedVideo]:
    """Read a table of videos; rows that repeat an earlier one are dropped and printed.

    Raises UserError that names each faulty line.
    """
    rows = read_spreadsheet(path, NEEDED, OPTIONAL, encoding=encoding)
    if not rows:
        raise UserError(f"{path}: the table has no rows below the names of the columns")
    faults: list[str] = []
    videos: list[ListedVideo] = []
    for row in rows:
        try:
            videos.append(_read_row(row))
        except ValueError as error:
            faults.append(f"{path}: line {row.line}: {error}")
    faults += (f"{path}: line {line}: {text}" for line, text in _contradictions(videos))
    faults += (f"{path}: line {line}: {text}" for line, text in _half_split(videos))
    raise_faults(faults)
    return _without_repeats(path, videos)


def with_paths(
    table: Path, videos: Sequence[ListedVideo], path_of: Mapping[str, str]
) -> list[ListedVideo]:
    """Replace the paths as written by those that `path_of` maps them to; of rows that are the same
    then, one remains. Raises UserError that names the lines of rows that contradict each other."""
    videos = [replace(video, path=path_of[video.path]) for video in videos]
    raise_faults([f"{table}: line {line}: {text}" for line, text in _contradictions(videos)])
    return _without_repeats(table, videos)


def raise_faults(faults: Sequence[str]) -> None:
    """Raise UserError with the first lines of `faults`, if there are any."""
    if faults:
        raise UserError("\n".join(first_few(faults, MAX_FAULTS)))


def _without_repeats(table: Path, videos: Sequence[ListedVideo]) -> list[ListedVideo]:
    unique = {(v.path, v.start, v.end): v for v in reversed(videos)}
    if len(unique) < len(videos):
        print(f"{table}: {len(videos) - len(unique)} rows repeat an earlier one")
    return [video for video in videos if unique[video.path, video.start, video.end] is video]


def _read_row(row: Row) -> ListedVideo:
    """Check a row by itself. Raises ValueError with what is wrong."""
    path = _path(row.cells["path"])
    # Accents may be written in two ways that look the same; NFC is the usual one.
    cells = {
        name: unicodedata.normalize("NFC", " ".join(row.cells.get(name, "").split()))
        for name in ("label", *OPTIONAL)
    }
    label, subset = cells["label"] or None, _subset(cells["split"])
    if label is None and subset != "testing":
        raise ValueError("no label")
    if label is not None and (fault := bad_name(label)) is not None:
        raise ValueError(f"label {shown(label)} {fault}")
    start, end = _seconds("start", cells["start"]), _seconds("end", cells["end"])
    if end is not None and end <= (start or 0):
        raise ValueError(f"the part ends at {end:g} s, but starts at {start or 0:g} s")
    return ListedVideo(row.line, path, label, subset, cells["group"], start or 0, end)


def _path(text: str) -> str:
    if not text.strip():
        raise ValueError("no path")
    if (fault := bad_name(text, is_path=True)) is not None:
        raise ValueError(f"path {shown(text)} {fault}")
    path = PurePosixPath(text)
    if not path.name or ".." in path.parts:
        raise ValueError(f"path {shown(text)} is not the name of a video below FRAMES")
    return str(path)


def _subset(text: str) -> str:
    if text and text.casefold() not in SUBSETS:
        raise ValueError(f"split {shown(text)} is not one of {', '.join(SUBSETS)}")
    return SUBSETS[text.casefold()] if text else ""


def _seconds(name: str, text: str) -> float | None:
    """Read 12.5, 12,5 or 1:02:03.5; None if empty."""
    if not text:
        return None
    match = CLOCK.fullmatch(text)
    hours, minutes, seconds = match.groups() if match else (None, None, "nan")
    last = float(seconds.replace(",", "."))
    if match is None or (minutes and last >= 60) or (hours and int(minutes or 0) >= 60):
        raise ValueError(f"{name} {shown(text)} is not a time in seconds, such as 12.5 or 1:02.5")
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + last


def _contradictions(videos: Sequence[ListedVideo]) -> Iterator[tuple[int, str]]:
    """Yield (line, fault) of rows that say something else than an earlier row of the video."""
    rows: dict[tuple[str, float, float | None], ListedVideo] = {}
    groups: dict[str, ListedVideo] = {}
    for video in videos:
        first = rows.setdefault((video.path, video.start, video.end), video)
        what = f"{shown_name(video.path)} is listed in line {first.line} already, with"
        if first.label != video.label:
            yield video.line, f"{what} the label {shown_name(first.label or 'none')}"
        elif first.subset != video.subset:
            yield video.line, f"{what} the split {first.subset or 'none'}"
        other = groups.setdefault(video.path, video)
        if other.group != video.group:
            name = shown_name(other.group or "none")
            yield video.line, f"{shown_name(video.path)} has group {name} in line {other.line}"


def _half_split(videos: Sequence[ListedVideo]) -> Iterator[tuple[int, str]]:
    if any(video.subset for video in videos):
        for video in videos:
            if not video.subset:
                yield video.line, "no split, though other rows have one"


def sources_of(videos: Sequence[ListedVideo]) -> Mapping[str, str]:
    """Map the path of each video to its source: its group, or else the video itself."""
    # The leading slash keeps the name of a group apart from every path.
    return {video.path: f"/{video.group}" if video.group else video.path for video in videos}


def groups_on_both_sides(videos: Sequence[ListedVideo]) -> list[str]:
    """List the groups, or paths of videos cut into parts, that the table's split puts both into
    training and into validation or test."""
    source_of = sources_of(videos)
    trained = {source_of[video.path] for video in videos if video.subset == "training"}
    others = {source_of[video.path] for video in videos if video.subset != "training"}
    return sorted(name.removeprefix("/") for name in trained & others)
