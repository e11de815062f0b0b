"""Write the index of your own frames: JPG_DIR/train/CLASS/VIDEO and JPG_DIR/val/CLASS/VIDEO, or
JPG_DIR/CLASS/VIDEO with a random split. There may be more folders between CLASS and VIDEO."""

import sys
from collections.abc import Sequence

from datasets.split import find_sources, find_subsets, videos_of_classes, videos_of_subsets
from datasets.split_command import (
    add_split_flags,
    check_split_flags,
    refuse_split_flags,
    write_drawn,
    write_split,
)
from datasets.survey import print_missing, survey_folder
from utils.command_line import INPUT, Parser, run


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    check_split_flags(options)
    jpg_dir = options.jpg_dir
    survey = survey_folder(jpg_dir)
    subsets = find_subsets(jpg_dir, survey.n_frames)
    if subsets:
        reason = f"{jpg_dir} is already split into {', '.join(subsets)}"
        refuse_split_flags(options, reason, "group_by")
        videos = videos_of_subsets(jpg_dir, survey.n_frames, subsets)
        print_missing(survey)
        write_split(options.dst_json, videos, survey)
        return 0
    videos = videos_of_classes(jpg_dir, survey.n_frames)
    source_of = find_sources([video.path for video in videos], options.group_by)
    print_missing(survey)
    write_drawn(options, videos, source_of, survey)
    return 0


def make_parser() -> Parser:
    parser = Parser(prog="util_scripts.folder_json", description=__doc__)
    parser.add_argument("jpg_dir", type=INPUT, help="frames that generate_video_jpgs wrote")
    add_split_flags(parser)
    parser.add_argument(
        "--group_by",
        metavar="REGEX",
        help="regular expression: its match in a video's path below CLASS (its groups, if it has "
        "any) identifies the video's source; videos of the same source stay together",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
