"""Serve a page on this machine to try a model on: drop, choose or record videos in a browser.

    python -m util_scripts.serve --checkpoint results/best.pth

The page shows the scores over time as they are computed, the frames that counted, and the top
labels; scores (JSON, CSV) and a copy of the video with the scores drawn on it can be downloaded.
Only this machine can open the page, unless --host says otherwise. Videos are processed one after
another and deleted once they are scored. Ctrl-C ends the server.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from errors import UserError
from predict.arguments import add_classifier_flags, classifier_of
from predict.console import say
from serving.guard import HOST, own_names
from utils.command_line import Parser, run

if TYPE_CHECKING:
    from predict.classifier import Classifier
    from serving.app import PageSettings

LARGEST_PORT = 65_535


def main(argv: Sequence[str] | None = None) -> int:
    options = _make_parser().parse_args(argv)
    _check(options)
    from serving.server import check_packages, listen, serving, url_of
    from serving.worker import Settings

    check_packages()
    with listen(options.host, options.port) as listening:
        classifier = classifier_of(options)
        if classifier.options.input_type == "flow":
            raise UserError(f"{options.checkpoint}: takes optical flow, not videos")
        stride = options.stride or classifier.options.sample_duration
        settings = Settings(stride, 60 * options.max_minutes, heat=not options.no_heat)
        page, hosts = _page(options, classifier), own_names(options.host, options.host_name)
        try:
            with serving(classifier, page, settings, listening, hosts) as worker:
                say(f"{options.checkpoint}: open {url_of(listening)} in a browser; Ctrl-C ends")
                worker.run()
        except KeyboardInterrupt:
            say("stopped", error=True)  # the ordinary end of a server
    return 0


def _page(options: argparse.Namespace, classifier: "Classifier") -> "PageSettings":
    from serving.app import PageSettings

    model = classifier.options
    every = "" if model.sample_t_stride == 1 else f", every {model.sample_t_stride}th"
    clip = f"{model.sample_duration} frames{every} of {model.sample_size} × {model.sample_size}"
    return PageSettings(
        model=classifier.path.name,
        arch=f"{model.model}-{model.model_depth}",
        labels=classifier.labels,
        clip=f"{clip} pixels",
        max_bytes=round(1e6 * options.max_megabytes),
        max_minutes=options.max_minutes,
    )


def _check(options: argparse.Namespace) -> None:
    if not 0 <= options.port <= LARGEST_PORT:
        raise UserError(f"--port {options.port}: must be from 0 (any free port) to {LARGEST_PORT}")
    if options.stride < 0:
        raise UserError(f"--stride {options.stride}: must not be negative")
    for name in ("max_megabytes", "max_minutes"):
        if not 0 < getattr(options, name) <= 1e6:
            value = getattr(options, name)
            raise UserError(f"--{name} {value:g}: must be above 0 and at most 1000000")
    for name in options.host_name:
        if HOST.fullmatch(name) is None or ":" in name:
            raise UserError(f"--host_name {name}: not the name of a machine")


def _make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="util_scripts.serve", description=__doc__)
    add = parser.add_argument
    text = "address to listen on; 0.0.0.0: all, so that others can open the page (127.0.0.1)"
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    add("--port", type=int, default=8000, help="port to listen on; 0: any free one (8000)")
    text = "another name under which the page may be opened, besides addresses; repeatable"
    add("--host_name", action="append", default=[], metavar="NAME", help=text)
    text = "largest video, in MB (1000)"
    add("--max_megabytes", type=float, default=1000, metavar="MB", help=text)
    text = "longest computing time of a video; its scores until then are shown (10)"
    add("--max_minutes", type=float, default=10, metavar="MINUTES", help=text)
    text = "kept frames from window to window; 0: window length (16)"
    add("--stride", type=int, default=16, help=text)
    add("--no_heat", action="store_true", help="show frames without heat maps: saves memory")
    add_classifier_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
