"""Write the indexes of HMDB-51's splits, hmdb51_N.json, from the official files
LABEL_test_splitN.txt."""

import argparse
import os
import re
import sys
from collections import defaultdict
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

SPLIT_FILE = re.compile(r"(.+)_test_split(\d+)\.txt")
FILE_LINE = re.compile(r"(.+?)\s+([012])")
SUBSETS = {"0": None, "1": "training", "2": "validation"}  # 0: not used in this split


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.hmdb51_json", description=__doc__)
    parser.add_argument("splits_dir", type=INPUT, help="folder testTrainMulti_7030_splits")
    parser.add_argument(
        "jpg_dir", type=INPUT, help="frames, as JPG_DIR/LABEL/VIDEO/image_00001.jpg"
    )
    parser.add_argument("dst_dir", type=OUTPUT_FOLDER, help="gets hmdb51_1.json …; made if missing")
    parser.also_writes(
        INDEX, lambda options: [index_of(options, n) for n in find_files(options.splits_dir)]
    )
    options = parser.parse_args(argv)
    if not options.splits_dir.is_dir():
        raise UserError(f"{options.splits_dir}: no such folder")
    files = find_files(options.splits_dir)
    if not files:
        raise UserError(f"{options.splits_dir}: no files like LABEL_test_split1.txt")
    splits = {index_of(options, number): read_split(files[number]) for number in sorted(files)}
    write_splits(splits, options.jpg_dir)
    return 0


def find_files(splits_dir: Path) -> dict[str, dict[str, Path]]:
    """Find the split files by number and label."""
    files: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for name in os.listdir(splits_dir) if splits_dir.is_dir() else ():
        if match := SPLIT_FILE.fullmatch(name):
            files[match[2]][match[1]] = splits_dir / name
    return files


def index_of(options: argparse.Namespace, number: str) -> Path:
    return options.dst_dir / f"hmdb51_{number}.json"


def read_split(files: dict[str, Path]) -> Split:
    """Read a split from one file per label; the labels are sorted."""
    labels = sorted(files)
    videos = (found for label in labels for found in _read_file(files[label], label))
    return Split(labels, unique_videos(videos))


def _read_file(path: Path, label: str) -> Iterator[tuple[str, Video]]:
    for place, line in read_lines(path):
        match = FILE_LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{place}: {line!r} is not a video name followed by 0, 1 or 2")
        subset = SUBSETS[match[2]]
        if subset is not None:
            name = Path(without_suffix(place, match[1])).name
            yield place, Video(subset, label, f"{label}/{name}")


if __name__ == "__main__":
    sys.exit(run(main))
