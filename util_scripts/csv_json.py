"""Write an index from a table (CSV) of videos: a row each, with the columns path and label, and
optionally split (train, val, test), group, start and end.

path is below FRAMES, which holds the frames of generate_video_jpgs or generate_video_hdf5, or the
videos themselves for --file_type video. Without split, the videos are split at random; those of
the same group, and parts of the same video, stay together. start and end, in seconds or as
1:02.5, cut a part out of a video; many rows may do so. Spreadsheets' delimiters, quotes and byte
order marks are recognised. Rows without frames are listed and left out.
"""

import sys
from collections.abc import Sequence

from datasets.listed_index import (
    FramePlaces,
    find_places,
    find_timings,
    parts_as_frames,
    videos_to_write,
)
from datasets.listed_videos import (
    ListedVideo,
    groups_on_both_sides,
    read_listed_videos,
    sources_of,
    with_paths,
)
from datasets.split import test_as_validation
from datasets.split_command import (
    add_split_flags,
    check_split_flags,
    refuse_split_flags,
    write_drawn,
    write_split,
)
from datasets.survey import print_list, survey_frames
from errors import UserError
from media.rates import Timing
from utils.command_line import INPUT, Parser, run
from utils.text import join_few


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    check_split_flags(options)
    if options.fps is not None and not 0 < options.fps < float("inf"):
        raise UserError(f"--fps {options.fps:g}: must be above 0")
    listed = read_listed_videos(options.csv, encoding=options.encoding)
    is_split = any(video.subset for video in listed)
    if is_split:
        refuse_split_flags(options, f"{options.csv} has a column split; remove one of the two")
    finder = FramePlaces(options.frames_dir)
    place_of = find_places(options.csv, listed, finder)
    placed = with_paths(options.csv, listed, place_of)
    survey = survey_frames(options.frames_dir, dict.fromkeys(video.path for video in placed))
    others = {place_of[path]: reason for path, reason in finder.others.items()}
    _print_left_out(listed, place_of, {**survey.missing, **survey.orphans, **others})
    cut = [video.path for video in placed if video.is_part]
    if options.fps is None:
        timings = find_timings(options.frames_dir, cut, survey, finder)
    else:
        timings = dict.fromkeys(cut, Timing(options.fps))
    parts = parts_as_frames(options.csv, placed, survey, timings)
    videos = videos_to_write(placed, survey, parts)
    if is_split:
        _print_shared(groups_on_both_sides(placed))
        write_split(options.dst_json, test_as_validation(videos, is_told=True), survey)
    else:
        write_drawn(options, videos, sources_of(placed), survey)
    return 0


def make_parser() -> Parser:
    parser = Parser(prog="util_scripts.csv_json", description=__doc__)
    parser.add_argument("csv", type=INPUT, help="table with the columns path and label")
    parser.add_argument("frames_dir", type=INPUT, metavar="frames", help="folder of the frames")
    add_split_flags(parser)
    parser.add_argument(
        "--fps", type=float, help="frames per second of all frames (as extracted, or of each video)"
    )
    parser.add_argument(
        "--encoding", help="encoding of the table (UTF-8, or UTF-16 with a byte order mark)"
    )
    return parser


def _print_left_out(
    listed: Sequence[ListedVideo], place_of: dict[str, str], missing: dict[str, str]
) -> None:
    reasons = {
        f"line {video.line}: {video.path}": missing[place_of[video.path]]
        for video in listed
        if place_of[video.path] in missing
    }
    print_list("rows are left out, because there are no frames of their videos:", reasons)


def _print_shared(groups: Sequence[str]) -> None:
    if groups:
        print(
            f"{len(groups)} groups or videos have rows both in training and in validation or "
            f"test, so the accuracy will be too high: {join_few(groups)}; without the column "
            "split, they would stay together"
        )


if __name__ == "__main__":
    sys.exit(run(main))
