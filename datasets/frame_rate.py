"""The frame rate of the videos of an index, and how it differs from what weights expect."""

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from statistics import median

from datasets.activitynet import UntrimmedIndex
from datasets.frame_locations import FrameLocator
from datasets.index import Index
from errors import UserError
from media.manifest import WITH_FRAMES, read_rows
from media.rates import read_timings
from media.verdicts import why_no_video

MAX_ROWS = 10_000  # of a manifest, which may have a million
MAX_FILES = 5  # videos that ffmpeg opens
SIMILAR = 1.25  # ratio of two rates up to which they count as the same, such as 25 and 30


def find_frame_rate(index: Index, frames_dir: Path, file_type: str = "jpg") -> float | None:
    """Return the median frames per second of the videos, or None if nothing says it.

    They are those of an index that has them, of the manifest of their extraction, or with the
    `file_type` "video" those of some of the files.
    """
    if isinstance(index, UntrimmedIndex):
        return _median(video.fps for video in index.videos)
    try:
        if file_type == "video":
            return _median(_rates_of_files(index, frames_dir))
        rows = list(islice(read_rows(frames_dir), MAX_ROWS))
    except UserError:  # no reason to stop: the frames are all that is needed
        return None
    return _median(row.arguments.fps or row.rate for row in rows if row.status in WITH_FRAMES)


def _rates_of_files(index: Index, frames_dir: Path) -> list[float | None]:
    locator = FrameLocator("video")
    located = (locator.locate(index, entry, str(frames_dir)) for entry in index.entries)
    paths = (Path(path) for path, exists in islice(located, MAX_ROWS) if exists)
    videos = islice((path for path in paths if why_no_video(path) is None), MAX_FILES)
    timings = read_timings(list(videos), timeout=30, is_silent=True)
    return [timing and timing.rate for timing, _ in timings]


def _median(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None and rate > 0]
    return median(known) if known else None


def describe_mismatch(rate: float, expected: float, *, t_stride: int, remedy: str) -> str | None:
    """Say that every `t_stride`-th frame of `rate` per second is not the `expected` rate, and with
    which --sample_t_stride it is closest; None if they are similar or `expected` is 0, unknown.

    `remedy` is added if no stride is close.
    """
    if not expected or _distance(rate / t_stride, expected) <= math.log(SIMILAR):
        return None
    below = max(1, math.floor(rate / expected))
    best = min((below, below + 1), key=lambda stride: _distance(rate / stride, expected))
    text = f"clips have {rate / t_stride:.4g} frames per second, the weights expect {expected:.4g}"
    advice = []
    if best != t_stride:
        advice.append(f"--sample_t_stride {best} gives {rate / best:.4g}")
    if _distance(rate / best, expected) > math.log(SIMILAR) / 2:
        advice.append(remedy)
    return f"{text}: {'; '.join(advice)}"


def _distance(rate: float, other: float) -> float:
    return abs(math.log(rate / other))
