"""Decide from ffmpeg's exit, or from a file's content, what status a video gets."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from media.ffmpeg_log import FfmpegRun
from media.manifest import DONE, FAILED, LEFT_OUT, PARTIAL
from utils.program import DISK_ERRORS

SNIFFED = 4096  # bytes read to distinguish text from video
TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")
EMPTY, NO_STREAM = "an empty file", "no video stream"
TEXT, PICTURE = "text, not a video", "a picture, not a video"
SYSTEM_ERRORS = tuple(  # ffmpeg's messages that say nothing about the file
    map(
        os.strerror,
        (
            *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.ECONNRESET),
            *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN),
        ),
    )
)
ADVICE = ". Try to increase"  # "`ulimit -v` or …", after the error of a thread
NOT_WRITTEN = tuple(map(os.strerror, DISK_ERRORS))
STILL_BRANDS = ("avif", "heic", "heix", "heim", "heis", "mif1", "mif2")  # pictures in an MP4's form
VIDEO_SUFFIXES = frozenset(
    [
        ".3g2",
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".dv",
        ".f4v",
        ".flv",
        ".gif",
        ".h264",
        ".h265",
        ".hevc",
        ".ivf",
        ".m1v",
        ".m2ts",
        ".m2v",
        ".m4v",
        ".mjpeg",
        ".mjpg",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpe",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".nut",
        ".ogm",
        ".ogv",
        ".qt",
        ".rm",
        ".rmvb",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".y4m",
    ]
)


class Verdict(NamedTuple):
    """The status of a video, and the reason unless it is done."""

    status: str
    reason: str = ""


def is_video_name(name: str) -> bool:
    """Whether a file has the suffix of a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def _without_frames(name: str, reason: str) -> Verdict:
    """Judge a file without frames: FAILED if it has a video's suffix or the machine is to blame,
    LEFT_OUT otherwise."""
    if is_video_name(name) or _names_one([reason], SYSTEM_ERRORS):
        return Verdict(FAILED, reason)
    return Verdict(LEFT_OUT, reason if "not a video" in reason else f"not a video: {reason}")


def judge(ran: FfmpegRun, *, n_frames: int, timeout: float = 0, name: str = "") -> Verdict:
    """Judge a run of ffmpeg on the file `name`. PARTIAL means frames and errors.

    Raises UserError if the disk is full or can't be written otherwise.
    """
    if lost := _names_one(ran.errors, NOT_WRITTEN):
        raise UserError(
            f"the disk is full or can't be written ({lost}); free some space, or mend what the "
            "message says, and run again to continue"
        )
    if ran.timed_out:
        return Verdict(FAILED, f"took longer than --timeout {timeout:g}")
    if ran.silent_for:
        reason = f"no frame for {ran.silent_for:g} s"
        if not n_frames:
            return Verdict(FAILED, reason)
        return Verdict(PARTIAL, f"{n_frames} frames; {reason}")
    is_still = ran.brand in STILL_BRANDS and (n_frames <= 1 or ran.seconds is None)
    if is_still or (ran.input_format is not None and _is_picture(ran.input_format)):
        return _without_frames(name, PICTURE)
    if ran.input_format is not None and "tty" in ran.input_format.split(","):
        return _without_frames(name, TEXT)
    if ran.returncode < 0:
        return Verdict(FAILED, f"ffmpeg was killed by signal {-ran.returncode}")
    if n_frames == 0:
        return _without_frames(name, _why_no_frames(ran))
    if ran.returncode != 0 or ran.errors:
        error = ran.errors[0] if ran.errors else f"ffmpeg's exit status is {ran.returncode}"
        return Verdict(PARTIAL, f"{n_frames} frames; {error}")
    return Verdict(DONE)


def judge_whole(ran: FfmpegRun, *, n_frames: int, timeout: float, name: str) -> Verdict:
    """Judge like `judge` a run that has to give all frames that the file has: FAILED also after
    frames if the machine is to blame for the end, because the next run may give all."""
    verdict = judge(ran, n_frames=n_frames, timeout=timeout, name=name)
    if verdict.status == PARTIAL and (lost := _names_one(ran.errors, SYSTEM_ERRORS)):
        return Verdict(FAILED, f"{lost} after {n_frames} frames")
    return verdict


def why_broken_off(ran: FfmpegRun) -> str | None:
    """Return why a live stream broke off, or None if its sender ended it."""
    if ran.silent_for:
        return f"no frame for {ran.silent_for:g} s"
    return _names_one(ran.errors, SYSTEM_ERRORS)


def _names_one(lines: Sequence[str], errors: Sequence[str]) -> str | None:
    """Return the first line that ends with one of the system's error messages, or with ffmpeg's
    advice after it; the name of a file, which lines may contain, does not."""
    for line in lines:
        if line.partition(ADVICE)[0].removesuffix(")").endswith(tuple(errors)):
            return line
    return None


def _is_picture(input_format: str) -> bool:
    """Whether a format is a picture; a GIF is a video, even with one frame."""
    return input_format in ("image2", "ico") or input_format.endswith("_pipe")


def _why_no_frames(ran: FfmpegRun) -> str:
    if any("matches no streams" in line for line in ran.errors):
        return NO_STREAM
    return ran.errors[0] if ran.errors else "no frame could be decoded"


def why_no_video(source: Path) -> Verdict | None:
    """Reject empty, unreadable and text files, which ffmpeg would render as pictures of text.

    Returns None for a file to pass on to ffmpeg.
    """
    try:
        with source.open("rb") as file:
            start = file.read(SNIFFED)
    except OSError as error:
        return Verdict(FAILED, error.strerror or str(error))
    if not start:
        return _without_frames(source.name, EMPTY)
    return _without_frames(source.name, TEXT) if _is_text(start) else None


def _is_text(data: bytes) -> bool:
    if any(byte < 32 and byte not in TEXT_CONTROLS for byte in data):
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(data) - 3  # a character cut by the end of `data`
    return True
