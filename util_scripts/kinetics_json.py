"""The index of Kinetics-400, 600 or 700 from its lists kinetics-700_train.csv, _val.csv and, if it
is there, _test.csv, or train.csv, val.csv and test.csv. Videos that could not be had stay in it
without a segment, and are named."""

import csv
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from datasets.frame_locations import UNLABELLED_FOLDER, FrameLocator
from datasets.index_writer import Video, make_entries, unique_videos, write_and_print
from datasets.segments import FIRST_NUMBER
from datasets.survey import print_missing, survey_frames
from errors import UserError
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.outputs import INDEX

COLUMNS = ("youtube_id", "time_start", "time_end")
SUBSET_NAMES = {  # of lists and folders
    "training": ("train",),
    "validation": ("val", "validate"),
    "testing": ("test",),
}
# Where CVDF's replacements for videos that its archives hold broken lie.
REPLACEMENTS = ("replacement/replacement_for_corrupted_k400", "replacement")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.kinetics_json", description=__doc__)
    parser.add_argument("csv_dir", type=INPUT, help="folder of the lists, or the one above")
    parser.add_argument("n_classes", choices=("400", "600", "700"), help="which Kinetics")
    parser.add_argument(
        "frames_dir", type=INPUT, help="frames, as FRAMES_DIR/LABEL/VIDEO or train/VIDEO"
    )
    parser.add_argument("file_type", choices=tuple(FIRST_NUMBER), help="form of the frames")
    parser.add_argument("dst_json", type=OutputPath(INDEX), help="the index to write")
    options = parser.parse_args(argv)
    lists = find_lists(options.csv_dir, options.n_classes)
    labels, videos = read_lists(lists, Places(options.frames_dir, options.file_type))
    if len(labels) > int(options.n_classes):
        raise UserError(
            f"{lists['training']}: names {len(labels)} labels, but Kinetics-{options.n_classes} "
            f"has {options.n_classes}"
        )
    survey = survey_frames(options.frames_dir, (video.path for video in videos))
    if survey.file_type != options.file_type:
        raise UserError(f"{options.frames_dir}: holds no {options.file_type} frames, but others")
    print_missing(survey)
    entries = make_entries(videos, survey, keep_missing=True)
    write_and_print(options.dst_json, labels, entries)
    return 0


def find_lists(folder: Path, n_classes: str) -> dict[str, Path]:
    """Subset -> list; training and validation must be there. Raises UserError."""
    found = {}
    for subset, names in SUBSET_NAMES.items():
        files = [
            f"{prefix}{name}.csv"
            for prefix in (f"kinetics-{n_classes}_", f"kinetics_{n_classes}_", "")
            for name in names
        ]
        paths = [place / file for place in (folder, folder / "annotations") for file in files]
        path = next(filter(Path.is_file, paths), None)
        if path is not None:
            found[subset] = path
        elif subset != "testing":
            raise UserError(f"{folder}: holds neither {' nor '.join(files)}")
    return found


class Places:
    """Where frames may lie below FRAMES_DIR: in a folder per label, spelt with spaces or, as
    downloaders do, underscores; in the same below train, val and test; or side by side in these, as
    CVDF's archives hold the videos."""

    def __init__(self, frames_dir: Path, file_type: str) -> None:
        self._frames_dir = frames_dir
        self._locator = FrameLocator(file_type)
        self._folders = cache(self._list_folders)

    def find(self, subset: str, label: str | None, name: str) -> str:
        """The place of a video, or where it would be if it is in none."""
        folders = self._folders(subset, label)
        for folder in folders:
            if self._locator.find(str(self._frames_dir / folder), name) is not None:
                return f"{folder}/{name}" if folder else name
        usual = [folder for folder in folders if folder not in ("", *REPLACEMENTS)]
        return f"{usual[0] if usual else label or UNLABELLED_FOLDER}/{name}"

    def _list_folders(self, subset: str, label: str | None) -> list[str]:
        """Those that exist, in the order in which they are looked into."""
        labels = [] if label is None else [label, label.replace(" ", "_")]
        sides = SUBSET_NAMES[subset]
        nested = [f"{side}/{spelling}" for side in sides for spelling in labels]
        folders = [*labels, *REPLACEMENTS, *nested, *sides, ""]
        return [folder for folder in folders if (self._frames_dir / folder).is_dir()]


def read_lists(lists: dict[str, Path], places: Places) -> tuple[list[str], list[Video]]:
    """Labels in the order in which the training list first names them, and all videos; those of the
    test list have a label where it tells one."""
    rows = [
        (subset, place, row)
        for subset, path in lists.items()
        for place, row in read_rows(path, is_labelled=subset != "testing")
    ]
    labels = list(dict.fromkeys(row["label"] for subset, _, row in rows if subset == "training"))
    known = set(labels)
    videos: list[tuple[str, Video]] = []
    for subset, place, row in rows:
        label = row.get("label") or None
        if label is None and subset != "testing":
            raise UserError(f"{place}: no label")
        if label is not None and label not in known:
            raise UserError(f"{place}: label {label!r} is not in the training list")
        path = places.find(subset, label, _video_id(place, row))
        videos.append((place, Video(subset, label, path)))
    return labels, unique_videos(videos)


def read_rows(path: Path, *, is_labelled: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """(place for messages, {column: value}) of each line. Raises UserError."""
    needed = ("label", *COLUMNS) if is_labelled else COLUMNS
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in needed if name not in (reader.fieldnames or ())]
            if lacking:
                raise UserError(f"{path}: its first line lacks the columns {', '.join(lacking)}")
            for row in reader:
                place = f"{path}: line {reader.line_num}"
                if any(row[name] is None for name in needed):
                    raise UserError(f"{place}: too few values")
                yield place, row
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: no list of comma-separated values: {error}") from None


def _video_id(place: str, row: dict[str, str]) -> str:
    try:
        start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
    except ValueError:
        raise UserError(
            f"{place}: times {row['time_start']!r}, {row['time_end']!r} are no seconds"
        ) from None
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"


if __name__ == "__main__":
    sys.exit(run(main))
