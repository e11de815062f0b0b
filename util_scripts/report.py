"""One HTML page of a results folder: accuracy, curves, confusions, calibration, mistakes.

RESULTS_DIR is what main.py --inference wrote; the page is a single file that needs no network. What
made the result is read from {subset}.run.json or opts.json beside it; the flags say it where that
is not known, or where things have moved. A part whose material is missing is left out and says so.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from errors import UserError
from reporting.facts import read_facts
from reporting.page import render
from util_scripts.cli import run

SUBSETS = ("train", "val", "test")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="util_scripts.report", description=__doc__)
    parser.add_argument("results_dir", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--subset", default="val", choices=SUBSETS, help="which result (val)")
    parser.add_argument("--out", type=Path, help="file to write (RESULTS_DIR/report.html)")
    parser.add_argument("--index", type=Path, help="index JSON, if not the one the run used")
    parser.add_argument("--positive", help="of two classes, the one that is looked for")
    options = parser.parse_args(argv)
    facts = read_facts(options.results_dir, options.subset, index_path=options.index)
    out = options.out or options.results_dir / "report.html"
    page = render(facts, strips={"reason": "not made"}, positive=options.positive)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}") from None
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
