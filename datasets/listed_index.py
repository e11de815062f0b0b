"""Find the frames of the videos that a table lists, and turn times into frame numbers."""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from datasets.activitynet import Part, frame_range
from datasets.frame_locations import FIRST_NUMBER, FrameLocator
from datasets.index_writer import Video
from datasets.listed_videos import ListedVideo, raise_faults
from datasets.survey import Survey, print_list
from errors import UserError
from media.manifest import WITH_FRAMES, read_rows, target_of
from media.rates import Timing, extracted_timings, read_timings
from media.verdicts import is_video_name
from utils.reading import shown_name
from utils.spreadsheet import spellings

SLACK = 1.0  # seconds by which a part may end after its video: times are rounded


class FramePlaces:
    """Finds where the frames of a listed path lie below FRAMES: a folder or HDF5 file called like
    the video, with or without its suffix, or the video itself.

    `others` maps paths whose frames are those of another video, by the manifest, to the reason.
    """

    def __init__(self, frames_dir: Path) -> None:
        self._frames_dir = frames_dir
        self._locators = {kind: FrameLocator(kind) for kind in FIRST_NUMBER}
        self.others: dict[str, str] = {}

    def find(self, path: str) -> str:
        """Return the place below FRAMES, or the path itself if there is none."""
        path_below = self._below(path)
        for spelling in spellings(path_below):
            if (place := self._find(spelling)) is not None:
                return place
        short = target_of(path_below)
        if short in self._sources and self._has_frames(short):
            self.others[path] = f"the frames in {short} are those of {self._sources[short]}"
        return path_below

    def file_of(self, place: str) -> Path:
        """Return the video file of a place that `find` returned."""
        return Path(self._file("video", place) or self._frames_dir / place)

    def name_of(self, path: str) -> str:
        """Return what all spellings of a path have in common."""
        return _same_spelling(self._below(path).strip().replace("\\", "/"))

    def _below(self, path: str) -> str:
        if not os.path.isabs(path):
            return path
        return os.path.relpath(os.path.realpath(path), os.path.realpath(self._frames_dir))

    def _find(self, path: str) -> str | None:
        short = target_of(path)
        if self._has_frames(path):
            return path
        if self._has_frames(short) and self._is_source(path, short):
            return short
        if (file := self._file("video", path)) is None:
            return None
        return short if self._file("video", short) == file else path

    def _is_source(self, path: str, short: str) -> bool:
        """Whether the frames at `short` are those of the video `path`: by the manifest, or else if
        the path ends like one of a video."""
        source = self._sources.get(short)
        if source is None:
            return is_video_name(path)
        return _same_spelling(source) == _same_spelling(path)

    def _has_frames(self, place: str) -> bool:
        return any(self._file(kind, place) is not None for kind in ("jpg", "hdf5"))

    def _file(self, kind: str, place: str) -> str | None:
        folder, name = os.path.split(self._frames_dir / place)
        return self._locators[kind].find(folder, name)

    @cached_property
    def _sources(self) -> Mapping[str, str]:
        """Map the places of extracted frames to their videos, by the manifest."""
        latest: dict[str, tuple[float, str]] = {}
        for row in read_rows(self._frames_dir):
            if row.status in WITH_FRAMES and row.time >= latest.get(row.target, (0, ""))[0]:
                latest[row.target] = (row.time, row.source.replace(os.sep, "/"))
        return {place: source for place, (_, source) in latest.items()}


def _same_spelling(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def find_places(table: Path, videos: Sequence[ListedVideo], finder: FramePlaces) -> dict[str, str]:
    """Map the path of each video to its place below FRAMES.

    Raises UserError for different videos at one place, such as a.avi and a.mp4, and if all places
    hold the frames of other videos.
    """
    place_of = {video.path: finder.find(video.path) for video in videos}
    if len(finder.others) == len(place_of):
        path, reason = next(iter(finder.others.items()))
        raise UserError(f"{table}: no frames of the listed videos, for example {path}: {reason}")
    first: dict[str, ListedVideo] = {}
    faults = []
    for video in videos:
        place = place_of[video.path]
        if finder.name_of(video.path) == _same_spelling(place):
            continue  # written without a suffix
        other = first.setdefault(place, video)
        if finder.name_of(other.path) != finder.name_of(video.path):
            faults.append(
                f"{table}: line {video.line}: {shown_name(video.path)} and "
                f"{shown_name(other.path)} in line {other.line} are different videos, but "
                f"only {shown_name(place)} has frames"
            )
    raise_faults(faults)
    return place_of


def parts_as_frames(
    table: Path, videos: Sequence[ListedVideo], survey: Survey, timings: Mapping[str, Timing]
) -> dict[int, tuple[int, int]]:
    """Map the line of each row that is a part to [first frame, last frame + 1].

    The paths of `videos` are places, which `timings` has as well. Rows without frames are left out.
    Prints videos whose frames may lie at other times. Raises UserError that names the lines of
    parts outside of their video.
    """
    found: dict[int, tuple[int, int]] = {}
    doubts: dict[str, str] = {}
    faults = []
    for video in videos:
        n_frames, timing = survey.n_frames.get(video.path), timings.get(video.path)
        if not video.is_part or n_frames is None:
            continue
        if timing is None:
            faults.append(
                f"line {video.line}: the frame rate of {video.path} is unknown; give --fps"
            )
            continue
        try:
            first, stop = _frames_of(video, n_frames, timing.rate_of(n_frames))
            found[video.line] = (first + survey.first - 1, stop + survey.first - 1)
        except ValueError as error:
            faults.append(f"line {video.line}: {error}")
        if (doubt := timing.doubt(n_frames)) is not None:
            doubts[video.path] = doubt
    raise_faults([f"{table}: {fault}" for fault in faults])
    print_list("videos are cut into parts that may have frames of other times:", doubts)
    return found


def _frames_of(video: ListedVideo, n_frames: int, rate: float) -> tuple[int, int]:
    seconds = n_frames / rate
    lasts = f"the video lasts {seconds:.1f} s ({n_frames} frames at {rate:g} per second)"
    if video.start >= seconds:
        raise ValueError(f"the part starts at {video.start:g} s, but {lasts}")
    if video.end is not None and video.end > seconds + SLACK:
        raise ValueError(f"the part ends at {video.end:g} s, but {lasts}")
    end = seconds + SLACK if video.end is None else video.end
    first, stop = frame_range(Part(0, video.start, end), rate, n_frames)
    if first >= stop:
        raise ValueError(f"the part holds no frame: {lasts}")
    return first, stop


def find_timings(
    frames_dir: Path, places: Iterable[str], survey: Survey, finder: FramePlaces
) -> dict[str, Timing]:
    """Return the timings of places: read from videos, or from the manifest of extraction."""
    if survey.file_type != "video":
        return extracted_timings(frames_dir)
    known = sorted(set(places) & survey.n_frames.keys())
    read = read_timings([finder.file_of(place) for place in known]) if known else []
    return {place: timing for place, (timing, _) in zip(known, read, strict=True) if timing}


def videos_to_write(
    videos: Sequence[ListedVideo], survey: Survey, parts: Mapping[int, tuple[int, int]]
) -> list[Video]:
    """Make the index's videos, in the table's order, without those that have no frames; the paths
    of `videos` are places."""
    return [
        Video(video.subset or "training", video.label, video.path, parts.get(video.line))
        for video in videos
        if video.path in survey.n_frames
    ]
