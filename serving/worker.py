"""Do the tasks of the queue, one after another: score a video, or draw its scores on a copy."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.scoring import Scorer, make_scorer
from errors import UserError
from media.ffmpeg import Ffmpeg, Stopped
from media.ffmpeg_inputs import input_of
from media.sources import VideoInput
from predict.classifier import Classifier
from predict.console import say
from predict.overlay import CaptionCollector, Painter, choose_font, write_overlay
from predict.predictions import ScoredWindow, Sink
from predict.predictor import Predictor
from predict.video_reader import NoVideo
from predict.writers import csv_writer, json_writer
from reporting.strips import Viewer
from serving.highlights import BestWindows, explain
from serving.hub import DONE, FAILED, SCORES, Hub, Task
from serving.publishing import Publisher, ResultKeeper
from utils.command_line import printable
from utils.progress_bar import duration
from utils.reading import shown_name

TOPK = 5
MAX_BATCH = 8  # windows scored at a time: the page shows them sooner
OUT_OF_TIME = "out of time"

log = logging.getLogger(__name__)


class Ended(Exception):
    """The task was cancelled."""


class Unusable(UserError):
    """The video can't be used, which the predictor has printed."""


@dataclass(frozen=True)
class Settings:
    """How videos are scored: `stride` counts kept frames from window to window; a task may take
    `seconds`; `heat` says whether to compute heat maps."""

    stride: int
    seconds: float
    heat: bool = True


class Worker:
    """Does tasks in the thread that calls `run`, with one classifier."""

    def __init__(self, classifier: Classifier, hub: Hub, settings: Settings) -> None:
        self._classifier, self.hub, self._settings = classifier, hub, settings
        self._scorer: Scorer = make_scorer(classifier.model, classifier.device)
        self._viewer = (
            Viewer(classifier.model, classifier.device, classifier.options.model)
            if settings.heat
            else None
        )
        self._painter = Painter(font=choose_font(classifier.labels))

    def run(self) -> None:
        """Do tasks until the hub is closed. Raises what a signal raises."""
        while not self.hub.is_closed:
            with self.hub.next_task() as task:
                if task is not None:
                    self._do(task)

    def _do(self, task: Task) -> None:
        """Do one task, and tell the page how it ended."""
        started = time.monotonic()
        try:
            done = self._score(task) if task.kind == SCORES else self._draw(task)
        except Ended:
            said, state, problem = "stopped", FAILED, self._why_ended(task)
        except UserError as error:
            problem = str(error).replace(str(task.video.folder), "")
            said, state = "" if isinstance(error, Unusable) else problem, FAILED
        except Exception:
            log.exception("%s", printable(task.video.name))
            problem = "An error in the server; its terminal shows more."
            said, state = "failed", FAILED
        else:
            said, state, problem = done.said, DONE, done.problem
        task.publish(state, problem=problem)
        if said:
            say(f"{printable(task.video.name)}: {said} ({duration(time.monotonic() - started)})")

    def _why_ended(self, task: Task) -> str:
        if task.reason != OUT_OF_TIME:
            return f"Stopped: {task.reason}."
        return f"Stopped after {self._minutes:g} minutes of computing, the limit of this server."

    def _stop_reason(self, task: Task) -> str:
        """Say in the files of scores why they end before the video."""
        out_of_time = task.reason == OUT_OF_TIME
        return f"--max_minutes {self._minutes:g}" if out_of_time else task.reason

    @property
    def _minutes(self) -> float:
        return self._settings.seconds / 60

    def _score(self, task: Task) -> "Done":
        """Score the video of a task. Raises Ended, or UserError if there are no scores."""
        video, labels = task.video, self._classifier.labels
        best, captions, keeper = BestWindows(), CaptionCollector(labels), ResultKeeper()
        about = {"checkpoint": self._classifier.path.name, "stride": self._settings.stride}
        with ExitStack() as files:
            table = csv_writer(video.folder / "scores.csv", labels, at_once=False)
            predictions = json_writer(video.folder / "scores.json", labels, 0, about)
            writers: list[Sink] = [files.enter_context(table), files.enter_context(predictions)]
            predictor = Predictor(
                self._classifier,
                self._settings.stride,
                [*writers, best, captions, keeper, Publisher(task)],
                scorer=self._scorer,
                max_batch=MAX_BATCH,
            )
            with self._ending(task, lambda: predictor.stop(self._stop_reason(task))):
                summary = predictor.run([_input_of(task)])
        if summary.interrupted is not None:
            raise KeyboardInterrupt
        task.upload.unlink(missing_ok=True)  # not kept while heat maps are computed
        result = keeper.result
        if not result.n_windows:
            if task.reason:
                raise Ended
            raise Unusable(f"This can't be used: {result.problem or 'it holds no frames'}.")
        video.keep_captions(captions)
        ranking = result.ranked(labels, TOPK)
        names = [entry["label"] for entry in ranking]
        video.publish(strips=self._explained(best.best, names, video.name))
        said = f"{result.n_windows} windows, {shown_name(names[0])} {ranking[0]['score']:.3f}"
        damage = f"Damaged: {result.problem}." if result.problem else ""
        problem = self._why_ended(task) if result.is_cut else damage
        return Done(said, " ".join(filter(None, (problem, self._odd_rate(predictor)))))

    def _odd_rate(self, predictor: Predictor) -> str:
        """Say that the video has another frame rate than the model expects; "" if not."""
        rate = predictor.stated_rate
        text = None if rate is None else self._classifier.rate_mismatch(rate)
        return f"{text[0].upper()}{text[1:]}." if text else ""

    def _explained(
        self, best: Mapping[int, ScoredWindow], names: Sequence[str], video: str
    ) -> list[dict[str, Any]]:
        """Explain the best windows, without heat maps if those fail: the scores are there."""
        try:
            return explain(best, names, self._classifier.labels, self._viewer, video)
        except Exception:
            log.exception("%s: no heat maps", printable(video))
            return explain(best, names, self._classifier.labels, None, video)

    def _draw(self, task: Task) -> "Done":
        """Draw the scores of a video on its second upload. Raises Ended or UserError."""
        captions = task.video.captions
        if captions is None:
            raise UserError("This video has no scores to draw.")
        target = task.video.folder / "overlay.mp4"
        with Ffmpeg() as ffmpeg, self._ending(task, ffmpeg.stop):
            write_overlay(ffmpeg, _input_of(task), target, captions, self._painter)
        return Done("overlay drawn")

    @contextmanager
    def _ending(self, task: Task, stop: Callable[[], None]) -> Iterator[None]:
        """End the block, by `stop`, if the task is cancelled or takes too long. Raises Ended for
        whatever a cancelled task fails with, and UserError if the video can't be read."""
        timer = threading.Timer(self._settings.seconds, task.cancel, [OUT_OF_TIME])
        timer.daemon = True
        timer.start()
        try:
            with task.stopped_by(stop):
                yield
        except (Stopped, NoVideo, UserError) as error:
            if task.reason:
                raise Ended from None
            if isinstance(error, NoVideo):
                raise UserError(f"This can't be used: {error.verdict.reason}.") from None
            raise
        finally:
            timer.cancel()


class Done(NamedTuple):
    """How a task ended: for the terminal, and what is wrong, for the page."""

    said: str
    problem: str = ""


def _input_of(task: Task) -> VideoInput:
    return VideoInput(task.video.name, tuple(input_of(task.upload)), task.upload)
