"""One video -> the scores of its windows, as they come: ffmpeg's pipe, windows, model."""

from collections.abc import Generator, Iterable, Iterator
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference import check_finite
from media.extraction import EVERY_FRAME, scaling
from media.ffmpeg import Ffmpeg, Stream
from media.manifest import DONE, FAILED, LEFT_OUT
from media.sources import VideoInput
from media.verdicts import Verdict, judge, why_no_video
from opts import Options
from predict.windows import Frame, Prefetched, Window, form_windows, read_ppm
from predict.writers import ScoredWindow, VideoResult
from spatial_transforms import EvalView, apply_view

if TYPE_CHECKING:
    from predict.classifier import Classifier

SIZE = 240  # the shorter side of the frames that models are trained on
DEFAULT_RATE = 25.0  # frames per second of a source that tells none
# What a JPG goes through: full range and halved colours, then BT.601 whatever the source says, as
# every reader of JPGs assumes. Without it, colours of HD videos are 15 of 255 off.
AS_JPG = (
    "format=yuvj420p|yuvj422p|yuvj444p,"
    "scale=in_color_matrix=bt601:in_range=pc:flags=bicubic+full_chroma_int+accurate_rnd,"
    "format=rgb24"
)
FOR_MODEL = f"{scaling(SIZE)},{AS_JPG}"
SHOWINFO = "showinfo=checksum=0"  # each frame's time, for Stream.next_time
PICTURES = ("-f", "image2pipe", "-c:v", "ppm", "-")  # each tells its size, which may change
PATIENCE = 60  # seconds without a frame, after which a URL, a pipe or a camera counts as gone
LOW_DELAY = ("-flags", "low_delay")


class NoVideo(Exception):
    """An input that gives no frames to look at; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class FrameReader:
    """Iterates over the frames of one input, once. `verdict` and `rate` are known at its end.

    The frames are those of `filters`, which have to end in RGB. Raises NoVideo where extraction
    would keep nothing.
    """

    def __init__(self, ffmpeg: Ffmpeg, source: VideoInput, filters: str) -> None:
        if source.is_file:
            assert source.path is not None
            problem = why_no_video(source.path)
            if problem is not None:
                raise NoVideo(problem)
        delay = LOW_DELAY if source.is_live else ()
        output = [*EVERY_FRAME, "-vf", f"{filters},{SHOWINFO}", *PICTURES]
        self._source = source
        self._stream: Stream = ffmpeg.stream(
            [*delay, *source.arguments, *output], patience=0 if source.is_file else PATIENCE
        )
        self.n_frames = 0
        self.seconds = 0.0  # up to the end of the last frame
        self.verdict = Verdict(DONE)
        self._is_stopped = False

    @property
    def rate(self) -> float:
        return self._stream.log.told().rate or DEFAULT_RATE

    def __iter__(self) -> Iterator[Frame]:
        stream = self._stream
        try:
            yield from self._frames(stream)
        except BaseException:
            stream.kill()
            raise
        finally:
            ran = stream.finish()
        if not self._is_stopped:
            self.verdict = self._checked(judge(ran, n_frames=self.n_frames, name=self._source.name))

    def _frames(self, stream: Stream) -> Iterator[Frame]:
        start = 0.0
        while (pixels := read_ppm(stream.pipe)) is not None:
            time = stream.next_time()
            if self.n_frames == 0:
                period = 1 / self.rate
                self._checked(judge(stream.log.told(), n_frames=2, name=self._source.name))
            self.n_frames += 1
            # The clock of a damaged file may be silent, or jump back.
            start = self.seconds if time is None else max(time, start)
            self.seconds = start + period
            yield Frame(self.n_frames, start, self.seconds, pixels)

    def stop(self) -> None:
        """End it, from any thread: the iteration comes to its end."""
        self._is_stopped = True
        self._stream.kill()

    def _checked(self, verdict: Verdict) -> Verdict:
        if verdict.status in (FAILED, LEFT_OUT):
            raise NoVideo(verdict)
        return verdict


def windows_of(frames: Iterable[Frame], options: Options, stride: int) -> Iterator[Window]:
    """The windows of a video as main.py's inference sees them; `stride` counts kept frames."""
    view = EvalView(options.sample_size)

    def transform(pixels: Tensor) -> Tensor:  # uint8 (3, H, W) -> (3, h, w)
        _, height, width = pixels.shape
        return apply_view([pixels], view.draw(height, width, Random(0)))[0]

    return form_windows(
        frames,
        transform,
        size=options.sample_duration,
        stride=stride,
        t_stride=options.sample_t_stride,
    )


class Scorer:
    """A classifier that scores the windows of videos, `stride` kept frames from start to start."""

    def __init__(self, classifier: "Classifier", stride: int) -> None:
        self.labels = classifier.labels
        self._options = classifier.options
        self.stride = stride
        self._score = classifier.device.scorer(classifier.model)

    def windows(
        self, reader: FrameReader, result: VideoResult, *, is_live: bool
    ) -> Generator[ScoredWindow, None, None]:
        """Score a video's windows in their order, and sum them up in `result`. Raises NoVideo as
        the reader does, UserError where the model gives NaN."""
        formed = windows_of(reader, self._options, self.stride)
        prefetched = Prefetched(formed, is_live=is_live)
        try:
            for batch in prefetched.batches():
                clips = torch.stack([window.clip for window in batch])  # (B, 3, T, h, w)
                scores = self._score(clips).softmax(dim=1).cpu().numpy()  # (B, K)
                for window, row in zip(batch, scores, strict=True):
                    check_finite(row, result.name)
                    known = row[: len(self.labels)].astype(np.float64)
                    scored = ScoredWindow(window.segment, window.start, window.end, known)
                    result.add(scored)
                    yield scored
        finally:
            reader.stop()
            prefetched.close()
            result.frames, result.seconds = reader.n_frames, reader.seconds
            result.rate, result.n_skipped = reader.rate, prefetched.n_skipped
