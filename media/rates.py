"""Frame rates of videos, and of the frames extracted from them."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from media.manifest import FAILED, LEFT_OUT, WITH_FRAMES, read_rows
from media.verdicts import judge, why_no_video
from utils.threads import thread_pool


def read_rates(
    paths: Sequence[Path], *, timeout: float = 0, is_silent: bool = False
) -> list[tuple[float | None, str]]:
    """Read frames per second with ffmpeg; (None, reason) if there are none, as in pictures.

    `timeout` is in seconds per video (0: no limit). A terminal gets a bar unless `is_silent`.
    """

    def read(path: Path) -> tuple[float | None, str]:
        verdict = why_no_video(path)
        if verdict is not None:
            return None, verdict.reason
        one_frame = ("-map", "0:V:0", "-frames:v", "1", "-f", "null", "-")
        ran = ffmpeg.run([*input_of(path), *one_frame], timeout=timeout)
        verdict = judge(ran, n_frames=ran.n_frames, timeout=timeout, name=path.name)
        if verdict.status in (FAILED, LEFT_OUT):
            return None, verdict.reason
        return ran.rate, ran.errors[0] if ran.errors else "ffmpeg reports no frame rate"

    with thread_pool() as pool, Ffmpeg() as ffmpeg:
        rates = pool.map(read, paths)
        return list(tqdm(rates, total=len(paths), disable=True if is_silent else None))


def extracted_rates(jpg_dir: Path) -> dict[str, float]:
    """Return the frames per second of extracted videos, by the place of their frames below JPG_DIR:
    --fps, or the rate of the video."""
    latest: dict[str, tuple[float, float]] = {}  # (time of the row, rate)
    for row in read_rows(jpg_dir):
        rate = row.arguments.fps or row.rate
        if row.status in WITH_FRAMES and rate and row.time >= latest.get(row.target, (0, 0))[0]:
            latest[row.target] = (row.time, rate)
    return {target: rate for target, (_, rate) in latest.items()}
