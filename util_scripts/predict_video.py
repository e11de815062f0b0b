"""What a trained model sees in videos: files, folders, patterns, URLs, a camera (/dev/video0).

    python -m util_scripts.predict_video holiday.mp4 --checkpoint results/best.pth
    python -m util_scripts.predict_video videos 'more/*.avi' --checkpoint best.pth --csv all.csv
    python -m util_scripts.predict_video rtsp://camera/stream --checkpoint best.pth --alert fight

Prints the highest scores of each video, the mean over its windows, and when which label is first.
Scores are those of main.py --inference on extracted frames, up to the loss of JPEG. Of a live
stream every window is told at once, or with --threshold or --alert every event; Ctrl-C ends it.
Exit status 1 where a video gave no scores.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from errors import UserError
from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import secrets_of
from media.manifest import LEFT_OUT
from media.sources import VideoInput, find_inputs
from predict.arguments import add_classifier_flags, classifier_of
from predict.writers import (
    Printer,
    ScoredWindow,
    Sink,
    VideoResult,
    Watch,
    clock,
    csv_writer,
    json_writer,
    say,
)
from utils.command_line import (
    INPUT,
    INPUT_VIDEO,
    OutputPath,
    Parser,
    printable,
    run,
)
from utils.outputs import OVERLAY, PREDICTION_TABLE, PREDICTIONS
from utils.process_list import hide_in_process_list
from utils.program import OutputLost

if TYPE_CHECKING:
    from predict.classifier import Classifier
    from predict.scoring import Scorer

STRIDE, LIVE_STRIDE = 16, 8  # kept frames between windows
THRESHOLD = 0.5


class Ended(Exception):
    """Ctrl-C or another signal; what came until then is in the outputs."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@dataclass
class Predictor:
    """Scores one input after the other into sinks, and counts what became of them."""

    scorer: "Scorer"
    sinks: Sequence[Sink]
    ffmpeg: Ffmpeg = field(default_factory=Ffmpeg)
    n_failed: int = 0
    n_left_out: int = 0

    def run(self, source: VideoInput, on_window: Callable[[ScoredWindow], None]) -> VideoResult:
        """Score one input. Raises Ended, with its results until then told."""
        result = VideoResult(source.name)
        for sink in self.sinks:
            sink.begin(source.name)
        try:
            try:
                self._score(source, result, on_window)
            except KeyboardInterrupt:
                result.problem = "interrupted"
                raise
            finally:
                self._end(result)
        except KeyboardInterrupt as asked:  # also where the reader of what is printed has gone
            raise Ended(getattr(asked, "exit_status", 130)) from None
        return result

    def _end(self, result: VideoResult) -> None:
        """End all sinks in their order, also where one of them raises."""
        with ExitStack() as ends:
            for sink in reversed(self.sinks):
                ends.callback(sink.end, result)

    def _score(
        self, source: VideoInput, result: VideoResult, on_window: Callable[[ScoredWindow], None]
    ) -> None:
        from predict.scoring import FOR_MODEL, FrameReader, NoVideo

        try:
            reader = FrameReader(self.ffmpeg, source, FOR_MODEL)
            with closing(self.scorer.windows(reader, result, is_live=source.is_live)) as windows:
                for window in windows:
                    for sink in self.sinks:
                        sink.window(window)
                    on_window(window)
            result.problem = reader.verdict.reason
        except NoVideo as no_video:
            result.problem = no_video.verdict.reason
            if source.is_found and no_video.verdict.status == LEFT_OUT:
                self.n_left_out += 1
                return
            self.n_failed += 1
        if result.problem:
            damaged = "" if result.total is None else "damaged: "
            say(f"{printable(source.name)}: {damaged}{result.problem}", error=True)


def main(argv: Sequence[str] | None = None) -> int:
    options = _make_parser().parse_args(argv)
    hide_in_process_list(secret for text in options.inputs for secret in secrets_of(text))
    inputs = find_inputs(options.inputs, live=options.live)
    _check(options, inputs)
    classifier = classifier_of(options)
    if classifier.options.input_type == "flow":
        raise UserError(f"{options.checkpoint}: sees optical flow, which videos do not hold")
    if options.overlay is not None:
        return _predict_and_draw(options, inputs, classifier)
    return _predict(options, inputs, classifier)


def _predict(
    options: argparse.Namespace,
    inputs: Sequence[VideoInput],
    classifier: "Classifier",
    *more_sinks: Sink,
) -> int:
    from predict.scoring import Scorer

    is_live = inputs[0].is_live
    stride = options.stride if options.stride is not None else LIVE_STRIDE if is_live else STRIDE
    scorer = Scorer(classifier, stride or classifier.options.sample_duration)
    with ExitStack() as files:
        sinks = _sinks(options, classifier.labels, scorer.stride, is_live, files)
        return _predict_all(Predictor(scorer, [*sinks, *more_sinks]), inputs)


def _predict_all(predictor: Predictor, inputs: Sequence[VideoInput]) -> int:
    """Score all inputs; returns the exit status."""
    is_live = inputs[0].is_live
    try:
        with tqdm(inputs, unit="video", disable=is_live or None, miniters=0, leave=False) as bar:
            for source in bar:

                def show(window: ScoredWindow, name: str = Path(source.name).name) -> None:
                    bar.set_postfix_str(f"{name} {clock(window.end)}", refresh=False)
                    bar.update(0)

                predictor.run(source, show)
    except Ended as ended:
        if ended.status != OutputLost.exit_status:
            say("interrupted: these are the results until then", error=True)
        return 0 if is_live else ended.status
    finally:
        predictor.ffmpeg.stop()
    if predictor.n_left_out:
        say(f"left out: {predictor.n_left_out} files that are no videos", error=True)
    if predictor.n_failed:
        say(f"{predictor.n_failed} of {len(inputs)} videos gave no scores", error=True)
    nothing = predictor.n_left_out == len(inputs)
    return 1 if predictor.n_failed or nothing else 0


def _predict_and_draw(
    options: argparse.Namespace, inputs: Sequence[VideoInput], classifier: "Classifier"
) -> int:
    """The video goes through ffmpeg twice: what is drawn on a frame may be known only later."""
    from predict.overlay import (
        SMALLEST_TEXT,
        Artist,
        Captions,
        choose_font,
        load_font,
        write_overlay,
    )

    font = options.font or choose_font(classifier.labels)
    if font is None:
        say("no installed font has all characters of the class names: give one with --font FILE",
            error=True)  # fmt: skip
    load_font(SMALLEST_TEXT, font)  # what is wrong with it is told before the work
    captions = Captions(classifier.labels)
    status = _predict(options, inputs, classifier, captions)
    if status == 0:
        threshold = THRESHOLD if options.threshold is None else options.threshold
        artist = Artist(frozenset(options.alert), threshold, font)
        write_overlay(Ffmpeg(), inputs[0], options.overlay, captions, artist)
        say(f"{options.overlay}: written")
    return status


def _sinks(
    options: argparse.Namespace,
    labels: Sequence[str],
    stride: int,
    is_live: bool,
    files: ExitStack,
) -> list[Sink]:
    """Where predictions go; `files` closes them."""
    watches = options.threshold is not None or bool(options.alert)
    timeline = options.timeline or (is_live and not watches)
    sinks: list[Sink] = []
    if watches:
        for label in options.alert:
            _check_label(label, labels)
        threshold = THRESHOLD if options.threshold is None else options.threshold
        sinks.append(Watch(labels, options.alert, threshold, is_live=is_live))
    if options.csv is not None:
        writer = csv_writer(options.csv, labels, at_once=is_live)
        sinks.append(files.enter_context(writer))
    if options.json is not None:
        about = {"checkpoint": str(options.checkpoint), "stride": stride}
        sinks.append(files.enter_context(json_writer(options.json, labels, options.topk, about)))
    # Last, so that the files have every window that it could not print.
    sinks.append(Printer(labels, options.topk, timeline=timeline, quiet=is_live))
    return sinks


def _check_label(label: str, labels: Sequence[str]) -> None:
    if label in labels:
        return
    near = difflib.get_close_matches(label, labels, n=3, cutoff=0) or labels[:3]
    raise UserError(f"--alert {label}: the model has no such class; near: {', '.join(near)}")


def _check(options: argparse.Namespace, inputs: Sequence[VideoInput]) -> None:
    if options.stride is not None and options.stride < 0:
        raise UserError(f"--stride {options.stride}: must not be negative")
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g}: must be above 0 and at most 1")
    if options.overlay is not None:
        _check_overlay(options.overlay, inputs)


def _check_overlay(target: Path, inputs: Sequence[VideoInput]) -> None:
    if len(inputs) > 1:
        raise UserError(f"--overlay {target}: draws on one video, not {len(inputs)}")
    if inputs[0].is_live:
        raise UserError(f"--overlay {target}: reads its video twice, which a live stream can't")
    if inputs[0].path is None and sys.platform == "win32":
        raise UserError(f"--overlay {target}: of a URL, it can't be written on Windows")
    if not target.suffix:
        raise UserError(f"--overlay {target}: the extension tells the format: {target}.mp4")


def _make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="util_scripts.predict_video",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "inputs",
        type=INPUT_VIDEO,
        nargs="+",
        metavar="VIDEO",
        help="file, folder, pattern, URL or /dev/video0",
    )
    add("--topk", type=int, default=5, help="labels per video (5); 0: all")
    add(
        "--stride",
        type=int,
        help="frames from window to window (16; live: 8); 0: a window's length",
    )
    add("--timeline", action="store_true", help="print every window, as soon as it is known")
    add(
        "--json", type=OutputPath(PREDICTIONS), metavar="FILE", help="write all windows and results"
    )
    add(
        "--csv",
        type=OutputPath(PREDICTION_TABLE),
        metavar="FILE",
        help="write all windows, a row each",
    )
    add(
        "--overlay",
        type=OutputPath(OVERLAY),
        metavar="FILE",
        help="write the one video with scores drawn on it",
    )
    add(
        "--font",
        type=INPUT,
        metavar="FILE",
        help="of the overlay (one that has the labels' letters)",
    )
    add("--live", action="store_true", help="VIDEO comes in its own time, which its kind hides")
    watching = parser.add_argument_group("watching for events")
    watching.add_argument(
        "--threshold", type=float, help=f"score from which on a label is an event ({THRESHOLD})"
    )
    watching.add_argument(
        "--alert", action="append", default=[], metavar="LABEL", help="only this one; repeatable"
    )
    add_classifier_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
