"""Frame rates of videos, and of the frames extracted from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from media.manifest import FAILED, LEFT_OUT, WITH_FRAMES, read_rows
from media.verdicts import judge, why_no_video
from utils.threads import thread_pool

SLACK = 1.0  # seconds by which sound may be longer than the frames
ROUNDING = 0.00501  # of a rate in ffmpeg's log
TIME_LAPSE = 1.0  # frames per second below which that rounding makes seconds within minutes
FILM = {23.98: 24000 / 1001}  # the usual rate of films, which it moves by 1.2 s in two hours
VARIES = 0.02  # part of a rate by which others may differ


class Timing(NamedTuple):
    """How the frames of a video follow each other, as far as ffmpeg says it."""

    rate: float  # frames per second, on average; ffmpeg rounds it to two digits
    tbr: float | None = None  # see FfmpegRun; None for frames extracted with --fps
    seconds: float | None = None  # duration of the file, with sound
    is_exact: bool = False  # the rate is an --fps

    def rate_of(self, n_frames: int) -> float:
        """Return the rate of all `n_frames`, without the rounding of films and time-lapses. For
        others it is less than the sound that may follow the last frame."""
        if self.is_exact:
            return self.rate
        if self.rate < TIME_LAPSE and self.seconds:
            exact = n_frames / self.seconds
            return exact if abs(exact - self.rate) <= ROUNDING else self.rate
        return FILM.get(self.rate, self.rate)

    def doubt(self, n_frames: int) -> str | None:
        """Say why the frames at a time may not be those that the rate gives; None if nothing shows
        it."""
        rate = self.rate_of(n_frames)
        seconds = n_frames / rate
        if self.tbr is not None and _varies(rate, self.tbr):
            return (
                f"the frame rate varies: {rate:.4g} per second on average, {self.tbr:.4g} in some "
                "places; generate_video_jpgs --fps N makes it even"
            )
        if self.seconds and abs(self.seconds - seconds) > SLACK:  # a raw stream may have 0
            return (
                f"the file lasts {self.seconds:.1f} s, but its {n_frames} frames {seconds:.1f} s "
                f"(at {rate:.4g} per second): they may start after the sound, or some are missing"
            )
        return None


def _varies(rate: float, tbr: float) -> bool:
    """Whether `tbr` shows another rate; that of fields, twice the rate, as of raw streams, is the
    same."""
    is_of_fields = abs(tbr - 2 * rate) <= 3 * ROUNDING
    return abs(tbr - rate) > VARIES * rate + 2 * ROUNDING and not is_of_fields


def read_timings(
    paths: Sequence[Path], *, timeout: float = 0, is_silent: bool = False
) -> list[tuple[Timing | None, str]]:
    """Read frame rates with ffmpeg; (None, reason) if there are none, as in pictures.

    `timeout` is in seconds per video (0: no limit). A terminal gets a bar unless `is_silent`.
    """

    def read(path: Path) -> tuple[Timing | None, str]:
        verdict = why_no_video(path)
        if verdict is not None:
            return None, verdict.reason
        one_frame = ("-map", "0:V:0", "-frames:v", "1", "-f", "null", "-")
        ran = ffmpeg.run([*input_of(path), *one_frame], timeout=timeout)
        verdict = judge(ran, n_frames=ran.n_frames, timeout=timeout, name=path.name)
        if verdict.status in (FAILED, LEFT_OUT):
            return None, verdict.reason
        timing = Timing(ran.rate, ran.tbr, ran.seconds) if ran.rate else None
        return timing, ran.errors[0] if ran.errors else "ffmpeg reports no frame rate"

    with thread_pool() as pool, Ffmpeg() as ffmpeg:
        timings = pool.map(read, paths)
        return list(tqdm(timings, total=len(paths), disable=True if is_silent else None))


def extracted_timings(jpg_dir: Path) -> dict[str, Timing]:
    """Return the timings of extracted videos, by the place of their frames below JPG_DIR: at --fps,
    or at the rate of the video."""
    latest: dict[str, tuple[float, Timing]] = {}  # with the time of the row
    for row in read_rows(jpg_dir):
        fps = row.arguments.fps
        if row.status not in WITH_FRAMES or not (rate := fps or row.rate):
            continue
        if row.target not in latest or row.time >= latest[row.target][0]:
            timing = Timing(rate, None if fps else row.tbr, row.seconds, is_exact=bool(fps))
            latest[row.target] = (row.time, timing)
    return {target: timing for target, (_, timing) in latest.items()}
