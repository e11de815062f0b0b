"""What became of a video: what ffmpeg's end means, and which files are no videos at all."""

import errno
import os
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from media.ffmpeg import FfmpegRun
from media.manifest import DONE, FAILED, LEFT_OUT, PARTIAL

SNIFFED = 4096  # bytes that tell text from video
TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")
EMPTY, NO_STREAM = "an empty file", "no video stream"
TEXT, PICTURE = "text, not a video", "a picture, not a video"
SYSTEM_ERRORS = tuple(  # in ffmpeg's words; they tell nothing of the file
    map(
        os.strerror,
        (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EACCES),
    )
)
VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2ts .m2v .m4v "
    ".mjpeg .mjpg .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob "
    ".webm .wmv .y4m".split()
)


class Verdict(NamedTuple):
    """What became of a video, and why where that is not plain."""

    status: str
    reason: str = ""


def is_video_name(name: str) -> bool:
    """Whether a file is called a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def weighed(name: str, reason: str) -> Verdict:
    """The verdict on a file without frames: one that is called a video has failed; another one is
    left out, unless the machine is to blame."""
    if is_video_name(name) or any(error in reason for error in SYSTEM_ERRORS):
        return Verdict(FAILED, reason)
    return Verdict(LEFT_OUT, reason if "not a video" in reason else f"not a video: {reason}")


def judge(ran: FfmpegRun, *, n_frames: int, timeout: float = 0, name: str = "") -> Verdict:
    """What ffmpeg's end means for the file `name`. A video is partial if ffmpeg complained and
    frames came all the same. Raises UserError on a full disk: frames are missing that would
    decode."""
    full = [line for line in ran.complaints if "No space left" in line]
    if full:
        raise UserError(f"the disk is full ({full[0]}); run again to go on when there is room")
    if ran.timed_out:
        return Verdict(FAILED, f"took longer than --timeout {timeout:g}")
    if ran.silent_for:
        reason = f"no frame came for {ran.silent_for:g} s"
        return (
            Verdict(PARTIAL, f"{n_frames} frames; {reason}")
            if n_frames
            else Verdict(FAILED, reason)
        )
    if ran.input_format is not None and _is_picture(ran.input_format):
        return weighed(name, PICTURE)
    if ran.input_format is not None and "tty" in ran.input_format.split(","):
        return weighed(name, TEXT)
    if ran.returncode < 0:
        return Verdict(FAILED, f"ffmpeg was ended by signal {-ran.returncode}")
    if n_frames == 0:
        return weighed(name, _why_no_frames(ran))
    if ran.returncode != 0 or ran.complaints:
        complaint = ran.complaints[0] if ran.complaints else f"ffmpeg's status {ran.returncode}"
        return Verdict(PARTIAL, f"{n_frames} frames; {complaint}")
    return Verdict(DONE)


def _is_picture(input_format: str) -> bool:
    """A GIF is a video, even of one frame."""
    return input_format in ("image2", "ico") or input_format.endswith("_pipe")


def _why_no_frames(ran: FfmpegRun) -> str:
    if any("matches no streams" in line for line in ran.complaints):
        return NO_STREAM
    return ran.complaints[0] if ran.complaints else "no frame could be decoded"


def why_no_video(source: Path) -> Verdict | None:
    """The verdict on a file that ffmpeg need not see: it would draw text as pictures."""
    try:
        with source.open("rb") as file:
            start = file.read(SNIFFED)
    except OSError as error:
        return Verdict(FAILED, error.strerror or str(error))
    if not start:
        return weighed(source.name, EMPTY)
    return weighed(source.name, TEXT) if _is_text(start) else None


def _is_text(data: bytes) -> bool:
    if any(byte < 32 and byte not in TEXT_CONTROLS for byte in data):
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(data) - 3  # a letter cut in two by the end of what was read
    return True
