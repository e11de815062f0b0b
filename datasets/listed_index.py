"""Find the frames of the videos that a table lists, and turn times into frame numbers."""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets.activitynet import Part, frame_range
from datasets.frame_locations import FrameLocator
from datasets.index_writer import Video
from datasets.listed_videos import MAX_FAULTS, ListedVideo
from datasets.segments import FIRST_NUMBER
from datasets.survey import Survey
from errors import UserError
from media.manifest import target_of
from media.rates import extracted_rates, read_rates
from utils.text import first_few

SLACK = 1.0  # seconds by which a part may end after its video: times are rounded


class FramePlaces:
    """Finds where the frames of a listed path lie below FRAMES: a folder or HDF5 file called like
    the video, with or without its suffix, or the video itself."""

    def __init__(self, frames_dir: Path) -> None:
        self._frames_dir = frames_dir
        self._locators = {kind: FrameLocator(kind) for kind in FIRST_NUMBER}

    def find(self, path: str) -> str:
        """Return the place below FRAMES, or where it would usually be."""
        for spelling in self._spellings(path):
            if (place := self._find(spelling)) is not None:
                return place
        return target_of(self._spellings(path)[0])

    def file_of(self, place: str) -> Path:
        """Return the video file of a place that `find` returned."""
        folder, name = os.path.split(self._frames_dir / place)
        return Path(self._locators["video"].find(folder, name) or self._frames_dir / place)

    def _spellings(self, path: str) -> list[str]:
        """List the path as written, stripped, with slashes, and in both Unicode normal forms."""
        if os.path.isabs(path):
            path = os.path.relpath(os.path.realpath(path), os.path.realpath(self._frames_dir))
        plain = [path, path.strip(), path.strip().replace("\\", "/")]
        forms = [unicodedata.normalize(form, p) for p in plain for form in ("NFC", "NFD")]
        return list(dict.fromkeys(plain + forms))

    def _find(self, path: str) -> str | None:
        short = target_of(path)
        for place in (path, short):
            if self._exists("jpg", place) or self._exists("hdf5", place):
                return place
        if not self._exists("video", path):
            return None
        return short if self._exists("video", short) else path

    def _exists(self, kind: str, place: str) -> bool:
        folder, name = os.path.split(self._frames_dir / place)
        return self._locators[kind].find(folder, name) is not None


def parts_as_frames(
    table: Path,
    videos: Sequence[ListedVideo],
    place_of: Mapping[str, str],
    survey: Survey,
    rates: Mapping[str, float],
) -> dict[int, tuple[int, int]]:
    """Map the line of each row that is a part to [first frame, last frame + 1].

    `place_of` maps paths of the table to places, `rates` places to frames per second. Rows without
    frames are left out. Raises UserError that names the lines of parts outside of their video.
    """
    found: dict[int, tuple[int, int]] = {}
    faults = []
    for video in videos:
        place = place_of[video.path]
        n_frames, rate = survey.n_frames.get(place), rates.get(place)
        if not video.is_part or n_frames is None:
            continue
        if rate is None:
            faults.append(f"line {video.line}: the frame rate of {place} is unknown; give --fps")
            continue
        try:
            first, stop = _frames_of(video, n_frames, rate)
            found[video.line] = (first + survey.first - 1, stop + survey.first - 1)
        except ValueError as error:
            faults.append(f"line {video.line}: {error}")
    if faults:
        raise UserError("\n".join(first_few([f"{table}: {fault}" for fault in faults], MAX_FAULTS)))
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


def find_rates(
    frames_dir: Path, places: Iterable[str], survey: Survey, finder: FramePlaces
) -> dict[str, float]:
    """Return the frame rates of places: read from videos, or from the manifest of extraction."""
    if survey.file_type != "video":
        return extracted_rates(frames_dir)
    known = sorted(set(places) & survey.n_frames.keys())
    read = read_rates([finder.file_of(place) for place in known]) if known else []
    return {place: rate for place, (rate, _) in zip(known, read, strict=True) if rate is not None}


def videos_to_write(
    videos: Sequence[ListedVideo],
    place_of: Mapping[str, str],
    survey: Survey,
    parts: Mapping[int, tuple[int, int]],
) -> list[Video]:
    """Make the index's videos, in the table's order, without those that have no frames."""
    return [
        Video(video.subset or "training", video.label, place_of[video.path], parts.get(video.line))
        for video in videos
        if place_of[video.path] in survey.n_frames
    ]
