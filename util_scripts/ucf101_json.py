"""Write the indexes of UCF-101's splits, ucf101_NN.json, from classInd.txt, trainlistNN.txt and
testlistNN.txt; also for other datasets with lists in this format."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.index_writer import (
    Split,
    Video,
    read_lines,
    unique_videos,
    without_suffix,
    write_splits,
)
from errors import UserError
from utils.command_line import INPUT, OUTPUT_FOLDER, Parser, run
from utils.outputs import INDEX

# "LABEL/VIDEO.avi 1"; test lists have no number. The number repeats the label and is ignored.
LIST_LINE = re.compile(r"([^/]+)/(.+?)(?:\s+\d+)?")
SUBSET_OF_LIST = {"trainlist": "training", "testlist": "validation"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.ucf101_json", description=__doc__)
    parser.add_argument("lists_dir", type=INPUT, help="folder ucfTrainTestlist")
    parser.add_argument(
        "jpg_dir", type=INPUT, help="frames, as JPG_DIR/LABEL/VIDEO/image_00001.jpg"
    )
    parser.add_argument(
        "dst_dir", type=OUTPUT_FOLDER, help="gets ucf101_01.json …; made if missing"
    )
    parser.also_writes(
        INDEX, lambda options: [index_of(options, n) for n in find_numbers(options.lists_dir)]
    )
    options = parser.parse_args(argv)
    labels = read_labels(options.lists_dir / "classInd.txt")
    numbers = find_numbers(options.lists_dir)
    if not numbers:
        raise UserError(f"{options.lists_dir}: no files like trainlist01.txt")
    splits = {
        index_of(options, number): read_split(options.lists_dir, number, labels)
        for number in numbers
    }
    write_splits(splits, options.jpg_dir)
    return 0


def find_numbers(lists_dir: Path) -> list[str]:
    """Find the numbers of the splits."""
    return sorted(
        match[1]
        for path in lists_dir.glob("*.txt")
        if (match := re.fullmatch(r"trainlist(\d+)\.txt", path.name))
    )


def index_of(options: argparse.Namespace, number: str) -> Path:
    return options.dst_dir / f"ucf101_{number}.json"


def read_labels(path: Path) -> list[str]:
    """Read classInd.txt, whose lines are like "1 ApplyEyeMakeup", in the file's order."""
    labels = []
    for place, line in read_lines(path):
        match = re.fullmatch(r"\d+\s+(.+)", line)
        if match is None:
            raise UserError(f"{place}: {line!r} is not a number followed by a label")
        labels.append(match[1])
    if not labels or len(set(labels)) < len(labels):
        raise UserError(f"{path}: no labels, or a label occurs twice")
    return labels


def read_split(lists_dir: Path, number: str, labels: list[str]) -> Split:
    """Read trainlist and testlist `number`."""
    videos = (
        found
        for name, subset in SUBSET_OF_LIST.items()
        for found in _read_list(lists_dir / f"{name}{number}.txt", subset, set(labels))
    )
    return Split(labels, unique_videos(videos))


def _read_list(path: Path, subset: str, labels: set[str]) -> Iterator[tuple[str, Video]]:
    for place, line in read_lines(path):
        match = LIST_LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{place}: {line!r} is not LABEL/VIDEO")
        if match[1] not in labels:
            raise UserError(f"{place}: label {match[1]!r} is not in classInd.txt")
        yield place, Video(subset, match[1], f"{match[1]}/{without_suffix(place, match[2])}")


if __name__ == "__main__":
    sys.exit(run(main))
