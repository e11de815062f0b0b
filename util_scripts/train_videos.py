"""Train a classifier on your own videos, with one command: VIDEOS is a folder of class folders
(CLASS/VIDEO.mp4, or train/CLASS/… and val/CLASS/…), or a table (CSV) as for csv_json.

It looks at the videos, times a few steps on this machine, chooses network, clips and epochs for
the time there is, prints this plan and how long it takes, and then runs the commands of the README,
which it also writes to RUN/commands.sh. At its end it says how good the model is and what that is
worth. Interrupted, the same command continues.
"""

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from datasets.folds import check_folds
from errors import UserError
from models.weights import is_weights_name
from own_videos.commands import SCRIPT, TABLE
from own_videos.saved_run import PLAN
from own_videos.train import Request, train
from recipe import recipe_names
from utils.command_line import INPUT, OUTPUT_FOLDER, Parser, expand_user, run
from utils.outputs import RUN_PLAN, RUN_SCRIPT, RUN_TABLE

MINUTES = 30.0
OUTPUTS = {SCRIPT: RUN_SCRIPT, TABLE: RUN_TABLE, PLAN: RUN_PLAN}  # in RUN


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    if not 0 < options.minutes < float("inf"):
        raise UserError(f"--minutes {options.minutes:g}: must be above 0")
    if options.folds:
        check_folds(options.folds)
    source, out = _source_of(options), _out_of(options)
    if not source.exists():
        raise UserError(f"{options.videos}: no such folder of videos, and no such table")
    if out == source:
        raise UserError(f"--out {options.out}: is the folder of the videos; choose another")
    request = Request(
        source=source,
        out=out,
        weights=_absolute(options.weights),
        recipe=_absolute(options.recipe),
        n_folds=options.folds,
        minutes=options.minutes,
        no_cuda=options.no_cuda,
        encoding=options.encoding,
    )
    return train(request, is_dry=options.dry_run)


def _absolute(name: str | None) -> str | None:
    """Make a path absolute, so that commands.sh finds it; leave the names of hosted weights and of
    recipes as they are, which main.py does not look for in the current folder either."""
    if name is None or is_weights_name(Path(name)) or name in recipe_names():
        return name
    path = expand_user(name)
    return os.path.abspath(path) if os.path.exists(path) else name


def make_parser() -> Parser:
    parser = Parser(prog="util_scripts.train_videos", description=__doc__)
    add = parser.add_argument
    add("videos", type=INPUT, metavar="VIDEOS", help="folder of class folders, or a CSV table")
    add("--out", type=OUTPUT_FOLDER, metavar="RUN", help="folder for everything (runs/NAME-…)")
    add(
        "--weights",
        help="weights to start from: a file or a name, as for --pretrain_path of main.py",
    )
    add("--recipe", help="recipe of main.py (default: by the weights and the time)")
    add("--folds", type=int, default=0, metavar="K", help="train K times; test every video once")
    add("--minutes", type=float, default=MINUTES, help=f"time for everything ({MINUTES:g})")
    add("--dry_run", action="store_true", help="print the plan and stop")
    add("--no_cuda", action="store_true", help="run on the CPU")
    add("--encoding", help="encoding of the table (UTF-8)")
    for name, kind in OUTPUTS.items():
        parser.also_writes(kind, partial(_output, name))
    return parser


def _output(name: str, options: argparse.Namespace) -> list[Path]:
    return [] if options.dry_run else [_out_of(options) / name]


def _source_of(options: argparse.Namespace) -> Path:
    return Path(os.path.abspath(options.videos))


def _out_of(options: argparse.Namespace) -> Path:
    return Path(os.path.abspath(options.out or default_out(_source_of(options))))


def default_out(source: Path) -> Path:
    """Return a folder for the run: another one for each source, the same one every time."""
    real = os.path.realpath(source)
    name = re.sub(r"[^\w.]+", "_", source.stem if source.is_file() else source.name).strip("_.")
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:8]
    return Path("runs", "-".join(filter(None, [name, digest])))


if __name__ == "__main__":
    sys.exit(run(main))
