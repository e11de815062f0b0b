"""The index of Kinetics-400, 600 or 700 from its lists kinetics-700_train.csv, _val.csv and, if it
is there, _test.csv. Videos that could not be had stay in it without a segment, and are named."""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.annotation import UNLABELLED_FOLDER
from errors import UserError
from opts import Parser
from util_scripts.cli import run
from util_scripts.indexing import (
    FIRST_NUMBER,
    Video,
    make_entries,
    print_missing,
    survey_frames,
    unique_videos,
    write_and_tell,
)

COLUMNS = ("youtube_id", "time_start", "time_end")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.kinetics_json", description=__doc__)
    parser.add_argument("csv_dir", type=Path, help="folder of the lists")
    parser.add_argument("n_classes", choices=("400", "600", "700"), help="which Kinetics")
    parser.add_argument("frames_dir", type=Path, help="frames, as FRAMES_DIR/LABEL/VIDEO")
    parser.add_argument("file_type", choices=tuple(FIRST_NUMBER), help="form of the frames")
    parser.add_argument("dst_json", type=Path, help="the index to write")
    options = parser.parse_args(argv)
    lists = find_lists(options.csv_dir, options.n_classes)
    labels, videos = read_lists(lists, options.frames_dir)
    survey = survey_frames(options.frames_dir, (video.path for video in videos))
    if survey.file_type != options.file_type:
        raise UserError(f"{options.frames_dir}: holds no {options.file_type} frames, but others")
    print_missing(survey)
    entries = make_entries(videos, survey, keep_missing=True)
    write_and_tell(options.dst_json, labels, entries)
    return 0


def find_lists(folder: Path, n_classes: str) -> dict[str, Path]:
    """Subset -> list; training and validation must be there. Raises UserError."""
    found = {}
    for subset, name in (("training", "train"), ("validation", "val"), ("testing", "test")):
        names = [f"kinetics{mark}{n_classes}_{name}.csv" for mark in "-_"]
        paths = [folder / name for name in names if (folder / name).is_file()]
        if paths:
            found[subset] = paths[0]
        elif subset != "testing":
            raise UserError(f"{folder}: holds neither {names[0]} nor {names[1]}")
    return found


def read_lists(lists: dict[str, Path], frames_dir: Path) -> tuple[list[str], list[Video]]:
    """Labels in the order in which the training list first names them, and all videos."""
    rows = [
        (subset, place, row) for subset, path in lists.items() for place, row in read_rows(path)
    ]
    labels = list(dict.fromkeys(row["label"] for subset, _, row in rows if subset == "training"))
    folders = {label: _folder_of(label, frames_dir) for label in labels}
    videos: list[tuple[str, Video]] = []
    for subset, place, row in rows:
        name = _video_id(place, row)
        if subset == "testing":
            videos.append((place, Video(subset, None, f"{UNLABELLED_FOLDER}/{name}")))
            continue
        label = row["label"]
        if label not in folders:
            raise UserError(f"{place}: label {label!r} is not in the training list")
        videos.append((place, Video(subset, label, f"{folders[label]}/{name}")))
    return labels, unique_videos(videos)


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(place for messages, {column: value}) of each line. Raises UserError."""
    needed = COLUMNS if path.stem.endswith("_test") else ("label", *COLUMNS)
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


def _folder_of(label: str, frames_dir: Path) -> str:
    """The label, or where only that is there the label with underscores, as downloaders write."""
    underscored = label.replace(" ", "_")
    is_underscored = not (frames_dir / label).is_dir() and (frames_dir / underscored).is_dir()
    return underscored if is_underscored else label


if __name__ == "__main__":
    sys.exit(run(main))
