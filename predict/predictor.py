"""Score videos window by window, and pass every score on as soon as it is computed."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.samplers import MAX_WINDOWS
from engine.scoring import Scorer, make_scorer
from inference import check_finite
from media.ffmpeg import Ffmpeg
from media.manifest import LEFT_OUT
from media.sources import VideoInput
from predict.classifier import Classifier
from predict.console import clock, say
from predict.predictions import ScoredWindow, Sink, VideoResult
from predict.video_reader import MODEL_FILTERS, NoVideo, VideoReader
from predict.windows import WindowPrefetcher, classifier_windows
from utils.command_line import printable
from utils.program import OutputLost

STRIDE, LIVE_STRIDE = 16, 8  # kept frames from the start of a window to that of the next


def default_stride(is_live: bool) -> int:
    return LIVE_STRIDE if is_live else STRIDE


class Interrupted(Exception):
    """Ctrl-C or another signal; the sinks have received everything up to it."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@dataclass
class Summary:
    """What became of the inputs of a run."""

    n_inputs: int
    is_live: bool
    n_begun: int = 0
    n_failed: int = 0
    is_broken_off: bool = False  # a live stream was lost
    n_skipped: int = 0  # files found in folders that are not videos
    interrupted: int | None = None  # exit status that the signal asks for

    @property
    def exit_status(self) -> int:
        if self.interrupted is not None:  # the ordinary end of a live stream
            return 0 if self.is_live else self.interrupted
        is_lost = self.n_failed or self.is_broken_off
        return 1 if is_lost or self.n_skipped == self.n_inputs else 0

    def lines(self) -> Iterator[str]:
        if self.interrupted is not None:
            if self.interrupted != OutputLost.exit_status:
                yield "interrupted: these are the results so far"
            return
        if self.n_skipped:
            yield f"skipped {self.n_skipped} files that are not videos"
        if self.n_failed:
            yield f"no scores for {self.n_failed} of {self.n_inputs} videos"


class Predictor:
    """Scores one input after the other with a classifier, and passes the scores on to sinks."""

    def __init__(
        self,
        classifier: Classifier,
        stride: int,
        sinks: Sequence[Sink],
        *,
        scorer: Scorer | None = None,
        max_batch: int = MAX_WINDOWS,
    ) -> None:
        """`stride` counts kept frames from the start of a window to that of the next. `scorer` is
        make_scorer's of the classifier, made if not given; `max_batch` windows are scored at a
        time: with fewer, scores arrive sooner."""
        self._classifier, self._stride, self._sinks = classifier, stride, sinks
        self._logits = scorer or make_scorer(classifier.model, classifier.device)
        self._max_batch = max_batch
        self._ffmpeg = Ffmpeg()
        self._rates: set[float] = set()  # frames per second of the videos so far
        self._reader: VideoReader | None = None
        self._stop_reason = ""

    def run(self, inputs: Sequence[VideoInput]) -> Summary:
        """Score all inputs under a progress bar. Ctrl-C ends the run early, not with an error."""
        summary = Summary(len(inputs), is_live=inputs[0].is_live)
        hidden = summary.is_live or None
        try:
            with tqdm(inputs, unit="video", disable=hidden, miniters=0, leave=False) as bar:
                for source in bar:

                    def show(window: ScoredWindow, name: str = Path(source.name).name) -> None:
                        bar.set_postfix_str(f"{name} {clock(window.end)}", refresh=False)
                        bar.update(0)

                    self._predict(source, summary, show)
        except Interrupted as interrupted:
            summary.interrupted = interrupted.status
        finally:
            self._ffmpeg.stop()
        return summary

    @property
    def stated_rate(self) -> float | None:
        """Frames per second of the last video, if it states them."""
        return None if self._reader is None else self._reader.stated_rate

    def stop(self, reason: str) -> None:
        """End the run, from any thread: the sinks receive the results so far, and the reason as
        their problem."""
        self._stop_reason = reason
        if self._reader is not None:
            self._reader.stop()
        self._ffmpeg.stop()

    def _predict(
        self, source: VideoInput, summary: Summary, on_window: Callable[[ScoredWindow], None]
    ) -> None:
        """Score one input. Raises Interrupted after the sinks have received its result."""
        result = VideoResult(source.name)
        summary.n_begun += 1
        for sink in self._sinks:
            sink.begin(source.name)
        try:
            try:
                self._score(source, result, summary, on_window)
            except KeyboardInterrupt:
                result.problem = "interrupted"
                raise
            finally:
                self._end(result)
        except KeyboardInterrupt as signal:  # also raised when the reader of stdout has gone
            raise Interrupted(getattr(signal, "exit_status", 130)) from None

    def _end(self, result: VideoResult) -> None:
        """End all sinks in order, even if one of them raises."""
        with ExitStack() as ends:
            for sink in reversed(self._sinks):
                ends.callback(sink.end, result)

    def _score(
        self,
        source: VideoInput,
        result: VideoResult,
        summary: Summary,
        on_window: Callable[[ScoredWindow], None],
    ) -> None:
        try:
            reader = self._reader = VideoReader(self._ffmpeg, source, MODEL_FILTERS)
            with closing(self._windows(reader, result, is_live=source.is_live)) as windows:
                for window in windows:
                    self._warn_of_rate(reader)
                    for sink in self._sinks:
                        sink.window(window)
                    on_window(window)
            result.problem, result.is_cut = reader.verdict.reason, reader.is_cut
            summary.is_broken_off = reader.is_broken_off
            if result.is_cut:
                result.problem = f"scored until {clock(result.seconds)}: {self._stop_reason}"
        except NoVideo as no_video:
            result.problem = no_video.verdict.reason
            if source.is_found and no_video.verdict.status == LEFT_OUT:
                summary.n_skipped += 1
                return
            summary.n_failed += 1
        if result.problem:
            is_explained = result.total is None or result.is_cut or summary.is_broken_off
            damaged = "" if is_explained else "damaged: "
            say(f"{printable(source.name)}: {damaged}{result.problem}", error=True)

    def _warn_of_rate(self, reader: VideoReader) -> None:
        """Report a frame rate that the model does not expect, each one once."""
        rate = reader.stated_rate
        if rate is None or rate in self._rates:
            return
        self._rates.add(rate)
        if text := self._classifier.rate_mismatch(rate):
            say(text, error=True)

    def _windows(
        self, reader: VideoReader, result: VideoResult, *, is_live: bool
    ) -> Generator[ScoredWindow, None, None]:
        """Score a video's windows in order and sum them up in `result`. Raises NoVideo as the
        reader does, and UserError if the model outputs NaN."""
        n_labels = len(self._classifier.labels)
        formed = classifier_windows(self._classifier, reader, self._stride)
        prefetcher = WindowPrefetcher(formed, is_live=is_live, max_batch=self._max_batch)
        try:
            for batch in prefetcher.batches():
                clips = torch.stack([window.clip for window in batch])  # (B, 3, T, h, w)
                scores = self._logits(clips).softmax(dim=1).cpu().numpy()  # (B, K)
                for window, row in zip(batch, scores, strict=True):
                    check_finite(row, result.name)
                    known = row[:n_labels].astype(np.float64)
                    place = (window.segment, window.start, window.end)
                    scored = ScoredWindow(*place, known, window.clip)
                    result.add(scored)
                    yield scored
        finally:
            reader.stop()
            prefetcher.close()
            result.frames, result.seconds = reader.n_frames, reader.seconds
            result.rate, result.n_skipped = reader.rate, prefetcher.n_skipped
