"""What folder_json and csv_json have in common: flags of the split, and writing its indexes."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets.folds import check_folds, draw_folds, fold_paths, refuse_other_folds
from datasets.index_writer import Video, make_entries, write_and_print
from datasets.split import draw_videos, one_sided_classes
from datasets.survey import Survey
from errors import UserError
from utils.command_line import OutputPath, Parser
from utils.outputs import INDEX
from utils.reading import shown_name

VAL_FRACTION = 0.2
SEED = 1


def add_split_flags(parser: Parser) -> None:
    """Add the index to write and the flags of the split."""
    add = parser.add_argument
    add("dst_json", type=OutputPath(INDEX), help="the index to write")
    add("--val_fraction", type=float, help=f"share of validation videos ({VAL_FRACTION})")
    add("--seed", type=int, help=f"seed of the split ({SEED})")
    add(
        "--folds",
        type=int,
        metavar="K",
        help="write K indexes for cross-validation, NAME_fold1.json …: every video is in "
        "validation in one of them",
    )
    parser.also_writes(INDEX, _fold_files)


def _fold_files(options: argparse.Namespace) -> Iterable[Path]:
    if options.folds is None:
        return []
    check_folds(options.folds)
    refuse_other_folds(options.dst_json, options.folds)
    return fold_paths(options.dst_json, options.folds)


def check_split_flags(options: argparse.Namespace) -> None:
    """Raise UserError for flags out of range, or that exclude each other."""
    fraction = options.val_fraction
    if fraction is not None and not 0 < fraction < 1:
        raise UserError(f"--val_fraction {fraction}: must lie between 0 and 1")
    if fraction is not None and options.folds is not None:
        raise UserError("--val_fraction cannot be combined with --folds, which sets the fraction")


def refuse_split_flags(options: argparse.Namespace, reason: str, *more: str) -> None:
    """Raise UserError if flags of the split are given, though the videos are split already."""
    names = ("val_fraction", "seed", "folds", *more)
    given = [f"--{name}" for name in names if getattr(options, name) is not None]
    if given:
        raise UserError(f"{', '.join(given)}: {reason}")


def write_drawn(
    options: argparse.Namespace,
    videos: Sequence[Video],
    source_of: Mapping[str, str],
    survey: Survey,
) -> None:
    """Split the videos as the flags say, and write the index or that of every fold.

    `source_of` maps the path of each video to its source.
    """
    seed = SEED if options.seed is None else options.seed
    if options.folds is None:
        fraction = VAL_FRACTION if options.val_fraction is None else options.val_fraction
        drawn = draw_videos(videos, source_of, fraction=fraction, seed=seed)
        write_split(options.dst_json, drawn, survey)
        return
    folds = draw_folds(videos, source_of, n_folds=options.folds, seed=seed)
    for path, fold in zip(fold_paths(options.dst_json, options.folds), folds, strict=True):
        write_split(path, fold, survey)


def write_split(path: Path, videos: Sequence[Video], survey: Survey) -> None:
    """Write the index of videos whose subsets are known."""
    _print_one_sided(videos)
    labels = sorted({video.label for video in videos if video.label is not None})
    write_and_print(path, labels, make_entries(videos, survey))


def _print_one_sided(videos: Sequence[Video]) -> None:
    """Print the classes that have training or validation videos only."""
    subsets = {video.subset for video in videos if video.label is not None}
    if "validation" not in subsets:
        print("there are no validation videos: train with --no_val")
    elif "training" not in subsets:
        print("there are no training videos: main.py needs --no_train")
    else:
        for side, labels in one_sided_classes(videos).items():
            if labels:
                names = ", ".join(map(shown_name, labels))
                print(f"{len(labels)} classes have {side} videos only: {names}")
