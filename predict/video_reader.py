"""Decode one video with ffmpeg into frames with timestamps, in constant memory."""

from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from media.extraction import EVERY_FRAME, scaling
from media.ffmpeg import Ffmpeg, Stream
from media.ffmpeg_inputs import PATIENCE
from media.manifest import DONE, FAILED, LEFT_OUT, PARTIAL
from media.sources import VideoInput
from media.verdicts import Verdict, judge, why_broken_off, why_no_video

SIZE = 240  # pixels of the shorter side, as in the extracted frames that models are trained on
DEFAULT_RATE = 25.0  # frames per second if the source states none
# Convert colours as extraction to JPEG does: full range with subsampled chroma, then BT.601
# whatever the source declares, as every JPEG reader assumes. Without this, colours of HD videos
# differ by up to 15 of 255 from the training frames.
JPEG_COLOURS = (
    "format=yuvj420p|yuvj422p|yuvj444p,"
    "scale=in_color_matrix=bt601:in_range=pc:flags=bicubic+full_chroma_int+accurate_rnd,"
    "format=rgb24"
)
MODEL_FILTERS = f"{scaling(SIZE)},{JPEG_COLOURS}"
SHOWINFO = "showinfo=checksum=0"  # logs each frame's timestamp, see Stream.next_time
PPM_OUTPUT = ("-f", "image2pipe", "-c:v", "ppm", "-")  # each PPM has its own size, which may change
LOW_DELAY = ("-flags", "low_delay")


class NoVideo(Exception):
    """An input without decodable frames; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class Frame(NamedTuple):
    """One decoded frame; `start` and `end` are the seconds between which it is displayed."""

    number: int  # from 1
    start: float
    end: float
    pixels: Tensor  # uint8 (3, H, W)


class VideoReader:
    """Iterate once over the frames of an input. At the end, `verdict` and `rate` are final,
    `is_cut` says whether `stop` ended the iteration, and `is_broken_off` whether a live stream was
    lost.

    `filters` are ffmpeg's and must end in RGB. Raises NoVideo if extraction would keep no frames.
    """

    def __init__(self, ffmpeg: Ffmpeg, source: VideoInput, filters: str) -> None:
        if source.is_file:
            assert source.path is not None
            problem = why_no_video(source.path)
            if problem is not None:
                raise NoVideo(problem)
        delay = LOW_DELAY if source.is_live else ()
        output = [*EVERY_FRAME, "-vf", f"{filters},{SHOWINFO}", *PPM_OUTPUT]
        self._source = source
        self._stream: Stream = ffmpeg.stream(
            [*delay, *source.arguments, *output], read_timeout=0 if source.is_file else PATIENCE
        )
        self.n_frames = 0
        self.seconds = 0.0  # end of the last frame
        self.verdict = Verdict(DONE)
        self.is_cut = self.is_broken_off = False
        self._is_stopped = False

    @property
    def rate(self) -> float:
        return self.stated_rate or DEFAULT_RATE

    @property
    def stated_rate(self) -> float | None:
        """Frames per second as the source states them, from the first frame on."""
        return self._stream.log.summary().rate

    def __iter__(self) -> Iterator[Frame]:
        stream = self._stream
        try:
            yield from self._frames(stream)
        except BaseException:
            stream.kill()
            raise
        finally:
            ran = stream.finish()
        self.is_cut = self._is_stopped
        if not self.is_cut:
            self.verdict = self._checked(judge(ran, n_frames=self.n_frames, name=self._source.name))
            reason = why_broken_off(ran) if self._source.is_live else None
            if reason is not None:
                self.is_broken_off = True
                self.verdict = Verdict(PARTIAL, f"the stream broke off: {reason}")

    def _frames(self, stream: Stream) -> Iterator[Frame]:
        start = 0.0
        while (pixels := read_ppm(stream.pipe)) is not None:
            time = stream.next_time()
            if self.n_frames == 0:
                period = 1 / self.rate
                self._checked(judge(stream.log.summary(), n_frames=2, name=self._source.name))
            self.n_frames += 1
            # Timestamps of a damaged file may be missing or jump back.
            start = self.seconds if time is None else max(time, start)
            self.seconds = start + period
            yield Frame(self.n_frames, start, self.seconds, pixels)

    def stop(self) -> None:
        """End the iteration, from any thread."""
        self._is_stopped = True
        self._stream.kill()

    def _checked(self, verdict: Verdict) -> Verdict:
        if verdict.status in (FAILED, LEFT_OUT):
            raise NoVideo(verdict)
        return verdict


def read_ppm(pipe: IO[bytes]) -> Tensor | None:
    """Read the next PPM picture of a pipe, uint8 (3, H, W). None at the end or if it is cut off."""
    if pipe.readline() != b"P6\n":
        return None
    size, depth = pipe.readline(), pipe.readline()
    if depth != b"255\n":
        return None
    width, height = map(int, size.split())
    data = bytearray(height * width * 3)
    view, n_read = memoryview(data), 0
    while n_read < len(data):
        n_new = pipe.readinto(view[n_read:])  # type: ignore[attr-defined]
        if not n_new:
            return None
        n_read += n_new
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
