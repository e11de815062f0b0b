"""Classify videos with a trained model: files, folders, patterns, URLs, a camera (/dev/video0).

    python -m util_scripts.predict_video holiday.mp4 --checkpoint results/best.pth
    python -m util_scripts.predict_video videos 'more/*.avi' --checkpoint best.pth --csv all.csv
    python -m util_scripts.predict_video rtsp://camera/stream --checkpoint best.pth --alert fight

Prints the highest scores of each video, averaged over its windows, and a timeline of the top label.
Scores equal those of main.py --inference on extracted frames, up to the loss of JPEG. For a live
stream, every window is printed as it is scored, or with --threshold or --alert every event; Ctrl-C
ends it. The exit status is 1 if any video gave no scores, or a live stream broke off.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import secrets_of
from media.sources import VideoInput, find_inputs
from predict.arguments import add_classifier_flags, classifier_of
from predict.console import EventPrinter, Printer, say
from predict.predictions import Sink
from predict.writers import csv_writer, json_writer
from utils.command_line import INPUT, INPUT_VIDEO, OutputPath, Parser, run
from utils.files import is_stream
from utils.outputs import OVERLAY, PREDICTION_TABLE, PREDICTIONS
from utils.process_list import hide_in_process_list

if TYPE_CHECKING:
    from predict.classifier import Classifier

THRESHOLD = 0.5


class KeepEarlier(Exception):
    """Leaves an output file as it was."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _make_parser().parse_args(argv)
    hide_in_process_list(secret for text in options.inputs for secret in secrets_of(text))
    inputs = find_inputs(options.inputs, live=options.live)
    _check(options, inputs)
    classifier = classifier_of(options)
    if classifier.options.input_type == "flow":
        raise UserError(f"{options.checkpoint}: takes optical flow, which videos do not contain")
    if options.overlay is not None:
        return _predict_and_draw(options, inputs, classifier)
    return _predict(options, inputs, classifier)


def _predict(
    options: argparse.Namespace,
    inputs: Sequence[VideoInput],
    classifier: "Classifier",
    *more_sinks: Sink,
) -> int:
    from predict.predictor import Predictor, default_stride

    stride = default_stride(inputs[0].is_live) if options.stride is None else options.stride
    stride = stride or classifier.options.sample_duration
    with ExitStack() as stack:
        outputs = [path for path in (options.csv, options.json) if path is not None]
        files = {path: stack.enter_context(ExitStack()) for path in outputs}
        sinks = _open_sinks(options, classifier.labels, stride, inputs[0].is_live, files)
        summary = Predictor(classifier, stride, [*sinks, *more_sinks]).run(inputs)
        for line in summary.lines():
            say(line, error=True)
        if summary.interrupted is not None and not summary.is_live:
            _end_early(files, f"{summary.n_begun} of {summary.n_inputs} videos")
    return summary.exit_status


def _end_early(files: Mapping[Path, ExitStack], videos: str) -> None:
    """Say what becomes of each output file of an interrupted run. An earlier file is kept, because
    it may hold all videos: a part of them must not replace it."""
    for path, file in files.items():
        if is_stream(path):
            continue
        if not path.exists():
            say(f"{path}: {videos} written, the last one in part", error=True)
            continue
        say(f"{path}: kept as it was", error=True)
        with suppress(KeepEarlier), file:
            raise KeepEarlier


def _predict_and_draw(
    options: argparse.Namespace, inputs: Sequence[VideoInput], classifier: "Classifier"
) -> int:
    """Decode the video twice: the caption of a frame may be known only some frames later."""
    from predict.overlay import (
        SMALLEST_TEXT,
        CaptionCollector,
        Painter,
        choose_font,
        load_font,
        write_overlay,
    )

    font = options.font or choose_font(classifier.labels)
    if font is None:
        say("no installed font has all characters of the class names; choose one with --font FILE",
            error=True)  # fmt: skip
    load_font(SMALLEST_TEXT, font)  # report a bad font before the work starts
    captions = CaptionCollector(classifier.labels)
    status = _predict(options, inputs, classifier, captions)
    if status == 0:
        painter = Painter(frozenset(options.alert), _threshold(options), font)
        write_overlay(Ffmpeg(), inputs[0], options.overlay, captions, painter)
        say(f"{options.overlay}: written")
    return status


def _open_sinks(
    options: argparse.Namespace,
    labels: Sequence[str],
    stride: int,
    is_live: bool,
    files: Mapping[Path, ExitStack],
) -> list[Sink]:
    """Open everything that predictions are printed or written to; `files`, by path, close them."""
    finds_events = options.threshold is not None or bool(options.alert)
    sinks: list[Sink] = []
    if finds_events:
        sinks.append(EventPrinter(labels, options.alert, _threshold(options), is_live=is_live))
    if options.csv is not None:
        table = csv_writer(options.csv, labels, at_once=is_live)
        sinks.append(files[options.csv].enter_context(table))
    if options.json is not None:
        about = {"checkpoint": str(options.checkpoint), "stride": stride}
        predictions = json_writer(options.json, labels, options.topk, about)
        sinks.append(files[options.json].enter_context(predictions))
    # Last: if stdout is closed, the files still receive the window that could not be printed.
    each = options.timeline or (is_live and not finds_events)
    sinks.append(Printer(labels, options.topk, each=each, merged=not is_live))
    return sinks


def _threshold(options: argparse.Namespace) -> float:
    return THRESHOLD if options.threshold is None else options.threshold


def _check(options: argparse.Namespace, inputs: Sequence[VideoInput]) -> None:
    if options.stride is not None and options.stride < 0:
        raise UserError(f"--stride {options.stride}: must not be negative")
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g}: must be above 0 and at most 1")
    if options.overlay is not None:
        _check_overlay(options.overlay, inputs)


def _check_overlay(target: Path, inputs: Sequence[VideoInput]) -> None:
    if len(inputs) > 1:
        raise UserError(f"--overlay {target}: takes one video, not {len(inputs)}")
    if inputs[0].is_live:
        raise UserError(f"--overlay {target}: decodes its video twice; a live stream is not kept")
    if inputs[0].path is None and sys.platform == "win32":
        raise UserError(f"--overlay {target}: is not supported for URLs on Windows")
    if not target.suffix:
        raise UserError(f"--overlay {target}: add an extension for the format, like {target}.mp4")


def _make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="util_scripts.predict_video", description=__doc__)
    add = parser.add_argument
    text = "file, folder, pattern, URL or /dev/video0"
    add("inputs", type=INPUT_VIDEO, nargs="+", metavar="VIDEO", help=text)
    add("--topk", type=int, default=5, help="labels to print per video; 0: all (5)")
    text = "kept frames from window to window; 0: window length (16; live: 8)"
    add("--stride", type=int, help=text)
    add("--timeline", action="store_true", help="print every window as it is scored")
    text = "write all windows and results as JSON"
    add("--json", type=OutputPath(PREDICTIONS), metavar="FILE", help=text)
    text = "write all windows as CSV, one row each"
    add("--csv", type=OutputPath(PREDICTION_TABLE), metavar="FILE", help=text)
    text = "write a copy of the video with scores drawn on it"
    add("--overlay", type=OutputPath(OVERLAY), metavar="FILE", help=text)
    text = "font of the overlay; must have the characters of the class names"
    add("--font", type=INPUT, metavar="FILE", help=text)
    text = "treat VIDEO as a live stream (for http:// URLs that are; cameras and RTSP always are)"
    add("--live", action="store_true", help=text)
    events = parser.add_argument_group("events")
    text = f"minimum score of an event ({THRESHOLD})"
    events.add_argument("--threshold", type=float, help=text)
    text = "report events of this label only; repeatable"
    events.add_argument("--alert", action="append", default=[], metavar="LABEL", help=text)
    add_classifier_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
