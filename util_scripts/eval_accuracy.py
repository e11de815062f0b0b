"""Compute the accuracy of a result file: top-1, top-5, mean class accuracy, missing videos."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.activitynet import read_any_index
from datasets.index import SUBSETS
from errors import UserError
from evaluation.results import KS, Accuracy, accuracy_of, describe, few_videos_warning, read_results
from utils.command_line import INPUT, Parser, run
from utils.files import write_text
from utils.outputs import ACCURACY


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.eval_accuracy", description=__doc__)
    parser.add_argument("index", type=INPUT, help="index JSON with the labels")
    parser.add_argument("result", type=INPUT, help="{subset}.json of main.py --inference")
    parser.add_argument("-k", type=int, default=1, help="k of the top-k accuracy (1)")
    parser.add_argument("--subset", default="validation", choices=tuple(SUBSETS))
    parser.add_argument("--save", action="store_true", help="write top{k}.txt next to the result")
    parser.add_argument(
        "--ignore", action="store_true", help="exclude videos without a result from the count"
    )
    parser.also_writes(ACCURACY, lambda options: [_saved_at(options)] if options.save else [])
    options = parser.parse_args(argv)
    if options.k < 1:
        raise UserError(f"-k {options.k}: must be at least 1")
    ks = (*KS, options.k)
    accuracy = accuracy_of(
        read_any_index(options.index),
        read_results(options.result),
        options.subset,
        ks=ks,
        ignore_missing=options.ignore,
    )
    if options.k not in accuracy.top:
        raise UserError(
            f"{options.result}: holds fewer than {options.k} entries for some videos; run main.py "
            f"--inference again with --output_topk {options.k} or more"
        )
    few = few_videos_warning(accuracy, options.subset)
    lines = [
        *_lines_of_the_original(accuracy, options.k),
        *filter(None, [few]),
        *describe(accuracy, ks=ks),
    ]
    print("\n".join(lines))
    if options.save:
        path = _saved_at(options)
        write_text(path, str(accuracy.top[options.k]))
        print(f"written to {path}")
    return 0


def _lines_of_the_original(accuracy: Accuracy, k: int) -> list[str]:
    """Format the accuracy as the original's script does, for programs that read its output."""
    return [
        "load ground truth",
        f"number of ground truth: {accuracy.n_videos}",
        "load result",
        f"number of result: {accuracy.n_results}",
        f"calculate top-{k} accuracy",
        f"top-{k} accuracy: {accuracy.top[k]}",
    ]


def _saved_at(options: argparse.Namespace) -> Path:
    return options.result.parent / f"top{options.k}.txt"


if __name__ == "__main__":
    sys.exit(run(main))
