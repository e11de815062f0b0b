"""Video files read as they are, through torchcodec, an optional package. Frames count from 1, as
in a folder of JPGs, so that one index serves both."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import UserError

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

PICTURE_CODECS = frozenset({"mjpeg", "png", "bmp", "webp", "gif", "tiff", "jpeg2000", "ansi"})
ERRORS = (RuntimeError, ValueError, IndexError, OSError)  # what torchcodec raises for a bad file


def require_torchcodec() -> None:
    """Raises UserError where the package or the libraries that it needs are absent."""
    try:
        import torchcodec
        import torchcodec.decoders

        # Releases from 0.17 on import without FFmpeg and fail at the first video.
        has_ffmpeg = getattr(torchcodec, "ffmpeg_major_version", "unknown") is not None
    except ImportError:
        raise UserError(
            "video files need the package torchcodec: pip install -r requirements-extra.txt"
        ) from None
    except (RuntimeError, OSError):
        has_ffmpeg = False
    if not has_ffmpeg:
        raise UserError(
            "torchcodec finds no FFmpeg libraries: install FFmpeg (apt install ffmpeg, or conda "
            "install ffmpeg), or extract frames and leave --file_type video out"
        )


@lru_cache(maxsize=2)  # windows of one long video follow each other: its scan is done once
def open_video(path: Path) -> "VideoDecoder":
    """The decoder of the stream that extraction takes: the first that is no cover picture.

    Raises one of ERRORS.
    """
    from torchcodec.decoders import VideoDecoder

    best = VideoDecoder(path)
    for number in range(best.stream_index or 0):
        try:
            earlier = VideoDecoder(path, stream_index=number)
        except ERRORS:
            continue  # sound
        if len(earlier) > 1:
            return earlier
    return best


def count_video(path: Path) -> int:
    """How many frames a file holds, up to the last one that can be decoded.

    Raises UserError for what is no video.
    """
    require_torchcodec()
    try:
        decoder = open_video(path)
        n_frames = len(decoder)
        if n_frames <= 1 and decoder.metadata.codec in PICTURE_CODECS:
            raise UserError(f"{path}: a picture, not a video")
        while n_frames and not _can_be_read(decoder, n_frames - 1):
            n_frames -= 1
        return n_frames
    except ERRORS as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    finally:
        open_video.cache_clear()


def _can_be_read(decoder: Any, number: int) -> bool:
    try:
        decoder.get_frame_at(number)
    except ERRORS:
        return False
    return True


def first_line(error: BaseException) -> str:
    """torchcodec's messages go on for pages, and begin with the place in its source."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return line.rpartition(".cpp:")[2].partition(", ")[2] or line
