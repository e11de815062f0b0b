"""Write the index of Kinetics-400, 600 or 700 from its lists kinetics-700_train.csv, _val.csv and,
if it exists, _test.csv; or train.csv, val.csv and test.csv. Videos without frames are listed, and
have no segment in the index."""

import sys
from collections.abc import Sequence

from datasets.frame_locations import FIRST_NUMBER
from datasets.index_writer import make_entries, write_and_print
from datasets.kinetics import FrameFinder, find_lists, read_lists
from datasets.survey import print_missing, survey_frames
from errors import UserError
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.outputs import INDEX


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.kinetics_json", description=__doc__)
    parser.add_argument("csv_dir", type=INPUT, help="folder of the lists, or its parent")
    parser.add_argument("n_classes", choices=("400", "600", "700"), help="which Kinetics")
    parser.add_argument(
        "frames_dir", type=INPUT, help="frames, as FRAMES_DIR/LABEL/VIDEO or train/VIDEO"
    )
    parser.add_argument("file_type", choices=tuple(FIRST_NUMBER), help="format of the frames")
    parser.add_argument("dst_json", type=OutputPath(INDEX), help="the index to write")
    options = parser.parse_args(argv)
    lists = find_lists(options.csv_dir, options.n_classes)
    labels, videos = read_lists(lists, FrameFinder(options.frames_dir, options.file_type))
    if len(labels) > int(options.n_classes):
        raise UserError(
            f"{lists['training']}: has {len(labels)} labels, but Kinetics-{options.n_classes} has "
            f"{options.n_classes}"
        )
    survey = survey_frames(options.frames_dir, (video.path for video in videos))
    if survey.file_type != options.file_type:
        raise UserError(
            f"{options.frames_dir}: holds {survey.file_type} frames, not {options.file_type}"
        )
    print_missing(survey)
    entries = make_entries(videos, survey, keep_missing=True)
    write_and_print(options.dst_json, labels, entries)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
