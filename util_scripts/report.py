"""Write an HTML report of a results folder: accuracy, curves, confusion, calibration, mistakes.

RESULTS_DIR is the --result_path of main.py --inference; the report is a single file that needs no
network. The index, frames and checkpoint of the run are read from {subset}.run.json or opts.json
in that folder; flags override them, for example if files have moved. A section whose data is
missing says so.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import UserError
from reporting.facts import REPORT_NAME, Facts, read_facts
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.outputs import REPORT

SUBSETS = ("train", "val", "test")
N_STRIPS = 6


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.report", description=__doc__)
    parser.add_argument("results_dir", type=INPUT, metavar="RESULTS_DIR")
    parser.add_argument("--subset", default="val", choices=SUBSETS, help="result to report (val)")
    parser.add_argument(
        "--out", type=OutputPath(REPORT), help="file to write (RESULTS_DIR/report.html)"
    )
    parser.add_argument("--index", type=INPUT, help="index JSON (default: that of the run)")
    parser.add_argument("--frames", type=INPUT, help="folder of frames (default: that of the run)")
    parser.add_argument("--checkpoint", type=INPUT, help="checkpoint (default: that of the run)")
    parser.add_argument("--positive", help="with two classes, the one to detect (the rarer one)")
    parser.add_argument(
        "--strips", type=int, default=N_STRIPS, help=f"videos to show per group ({N_STRIPS})"
    )
    parser.add_argument(
        "--layer", help="module for Grad-CAM (default: the last that is fine enough)"
    )
    parser.add_argument("--no_cuda", action="store_true", help="run the model on the CPU")
    parser.also_writes(REPORT, lambda options: [] if options.out else [_page_of(options)])
    options = parser.parse_args(argv)
    if options.strips < 0:
        raise UserError(f"--strips {options.strips}: must not be negative")
    facts = read_facts(options.results_dir, options.subset, index_path=options.index)
    strips = _strips(facts, options)
    from reporting.writing import write_report

    out = options.out or _page_of(options)
    write_report(out, facts, strips=strips, positive=options.positive)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    return 0


def _page_of(options: argparse.Namespace) -> Path:
    return options.results_dir / REPORT_NAME


def _strips(facts: Facts, options: argparse.Namespace) -> dict[str, Any]:
    if options.strips == 0:
        return {"reason": "--strips 0"}
    from reporting.inputs import Overrides, open_inputs
    from reporting.strips import groups_of, ids_of, make_strips

    overrides = Overrides(options.frames, options.checkpoint, options.layer, options.no_cuda)
    ids = ids_of(facts, groups_of(facts, options.strips))
    dataset, viewer, reasons = open_inputs(facts, overrides, ids)
    return make_strips(facts, options.strips, dataset=dataset, viewer=viewer, reasons=reasons)


if __name__ == "__main__":
    sys.exit(run(main))
