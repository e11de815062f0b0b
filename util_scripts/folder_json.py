"""Write the index of your own frames: JPG_DIR/train/CLASS/VIDEO and JPG_DIR/val/CLASS/VIDEO, or
JPG_DIR/CLASS/VIDEO with a random split. There may be more folders between CLASS and VIDEO."""

import sys
from collections.abc import Sequence

from datasets.index_writer import Video, make_entries, write_and_print
from datasets.split import draw_videos, find_subsets, one_sided_classes, videos_of_subsets
from datasets.survey import print_missing, survey_folder
from errors import UserError
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.outputs import INDEX
from utils.reading import shown_name

VAL_FRACTION = 0.2
SEED = 1


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    fraction = VAL_FRACTION if options.val_fraction is None else options.val_fraction
    if not 0 < fraction < 1:
        raise UserError(f"--val_fraction {fraction}: must lie between 0 and 1")
    survey = survey_folder(options.jpg_dir)
    subsets = find_subsets(options.jpg_dir, survey.n_frames)
    if subsets:
        flags = ("val_fraction", "seed", "group_by")
        given = [f"--{name}" for name in flags if getattr(options, name) is not None]
        if given:
            raise UserError(
                f"{', '.join(given)}: {options.jpg_dir} is already split into {', '.join(subsets)}"
            )
        videos = videos_of_subsets(options.jpg_dir, survey.n_frames, subsets)
    else:
        seed = SEED if options.seed is None else options.seed
        videos = draw_videos(
            options.jpg_dir,
            survey.n_frames,
            fraction=fraction,
            seed=seed,
            group_by=options.group_by,
        )
    print_missing(survey)
    _print_one_sided(videos)
    labels = sorted({video.label for video in videos if video.label is not None})
    write_and_print(options.dst_json, labels, make_entries(videos, survey))
    return 0


def make_parser() -> Parser:
    parser = Parser(prog="util_scripts.folder_json", description=__doc__)
    parser.add_argument("jpg_dir", type=INPUT, help="frames that generate_video_jpgs wrote")
    parser.add_argument("dst_json", type=OutputPath(INDEX), help="the index to write")
    parser.add_argument(
        "--val_fraction", type=float, help=f"share of validation videos per class ({VAL_FRACTION})"
    )
    parser.add_argument("--seed", type=int, help=f"seed of the split ({SEED})")
    parser.add_argument(
        "--group_by",
        metavar="REGEX",
        help="regular expression: its match in a video's path below CLASS (its groups, if it has "
        "any) identifies the video's source; videos of the same source stay together",
    )
    return parser


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


if __name__ == "__main__":
    sys.exit(run(main))
