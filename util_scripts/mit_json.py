"""Write the index of Moments in Time from moments_categories.txt, trainingSet.csv,
validationSet.csv and, if it exists, testingSet.csv."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from datasets.frame_locations import UNLABELLED_FOLDER
from datasets.index_writer import (
    Split,
    Video,
    read_lines,
    unique_videos,
    without_suffix,
    write_splits,
)
from errors import UserError
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.outputs import INDEX


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.mit_json", description=__doc__)
    parser.add_argument("lists_dir", type=INPUT, help="folder of the lists")
    parser.add_argument("jpg_dir", type=INPUT, help="frames, as JPG_DIR/LABEL/VIDEO")
    parser.add_argument("dst_json", type=OutputPath(INDEX), help="the index to write")
    options = parser.parse_args(argv)
    labels = read_labels(options.lists_dir / "moments_categories.txt")
    videos = [
        *_labelled(options.lists_dir / "trainingSet.csv", "training", set(labels)),
        *_labelled(options.lists_dir / "validationSet.csv", "validation", set(labels)),
    ]
    testing = options.lists_dir / "testingSet.csv"
    if testing.is_file():
        videos += _unlabelled(testing)
    write_splits({options.dst_json: Split(labels, unique_videos(videos))}, options.jpg_dir)
    return 0


def read_labels(path: Path) -> list[str]:
    """Read lines of `label,number`; return the labels in order. Raises UserError."""
    labels = []
    for place, line in read_lines(path):
        label, comma, number = line.rpartition(",")
        if not comma or not number.strip().isdigit():
            raise UserError(f"{place}: {line!r} is not a label, a comma and a number")
        if label in labels:
            raise UserError(f"{place}: label {label!r} occurs twice")
        labels.append(label)
    if not labels:
        raise UserError(f"{path}: contains no labels")
    return labels


def _labelled(path: Path, subset: str, labels: set[str]) -> Iterator[tuple[str, Video]]:
    """Read lines of `label/file.mp4,label,…`."""
    for place, line in read_lines(path):
        name, *rest = line.split(",")
        if not rest or "/" not in name:
            raise UserError(f"{place}: {line!r} is not label/file.mp4,label")
        if rest[0] not in labels:
            raise UserError(f"{place}: label {rest[0]!r} is not in moments_categories.txt")
        yield place, Video(subset, rest[0], without_suffix(place, name))


def _unlabelled(path: Path) -> Iterator[tuple[str, Video]]:
    for place, line in read_lines(path):
        name = PurePosixPath(without_suffix(place, line.split(",")[0])).name
        yield place, Video("testing", None, f"{UNLABELLED_FOLDER}/{name}")


if __name__ == "__main__":
    sys.exit(run(main))
