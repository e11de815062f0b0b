"""Compare runs on the same videos: the accuracy of each, and whether one is significantly better.

A video counts if it has a label and a result in every run. It is correct if its top-1 label is;
window scores (--inference_no_average) are averaged first. The first run is compared with each of
the others by McNemar's exact test on the videos that only one of the two got right: this can show
a clear difference even where the intervals of two accuracies overlap. Runs on several splits, such
as the three of UCF-101, are given split by split:

    compare ucf101_01.json A1/val.json B1/val.json
            --split ucf101_02.json A2/val.json B2/val.json
            --split ucf101_03.json A3/val.json B3/val.json
"""

import sys
from collections.abc import Sequence

from datasets.index import SUBSETS
from evaluation.comparison import as_plain, describe, read_splits
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.files import write_json
from utils.outputs import COMPARISON


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.compare", description=__doc__)
    parser.add_argument("index", type=INPUT, help="index JSON with the labels")
    parser.add_argument(
        "results",
        type=INPUT,
        nargs="+",
        metavar="result",
        help="{subset}.json of main.py --inference, one per run",
    )
    parser.add_argument(
        "--split",
        type=INPUT,
        nargs="+",
        action="append",
        default=[],
        metavar=("INDEX", "RESULT"),
        help="index and results of another split, with the same runs in the same order",
    )
    parser.add_argument("--subset", default="validation", choices=tuple(SUBSETS))
    parser.add_argument("--classes", type=int, default=10, help="classes to list per pair (10)")
    parser.add_argument(
        "--json", type=OutputPath(COMPARISON), help="also write all figures to this file"
    )
    options = parser.parse_args(argv)
    groups = [[options.index, *options.results], *options.split]
    splits = read_splits(groups, options.subset)
    print("\n".join(describe(splits, subset=options.subset, n_classes=max(0, options.classes))))
    if options.json is not None:
        write_json(options.json, as_plain(splits))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
