"""Read the lists of Kinetics, and find its frames in the layouts of common downloads."""

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from datasets.frame_locations import UNLABELLED_FOLDER, FrameLocator
from datasets.index_writer import Video, unique_videos
from errors import UserError

COLUMNS = ("youtube_id", "time_start", "time_end")
SUBSET_NAMES = {  # in the names of lists and folders
    "training": ("train",),
    "validation": ("val", "validate"),
    "testing": ("test",),
}
# Folders of CVDF's replacements for the broken videos in its archives.
REPLACEMENTS = ("replacement/replacement_for_corrupted_k400", "replacement")


def find_lists(folder: Path, n_classes: str) -> dict[str, Path]:
    """Find the list of each subset. Raises UserError if training or validation has none."""
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
            raise UserError(f"{folder}: has no list of {subset} videos: none of {', '.join(files)}")
    return found


class FrameFinder:
    """Finds frames below FRAMES_DIR: in a folder per label, spelt with spaces or (by downloaders)
    underscores; in the same below train, val and test; or directly in these, as in CVDF's
    archives."""

    def __init__(self, frames_dir: Path, file_type: str) -> None:
        self._frames_dir = frames_dir
        self._locator = FrameLocator(file_type)
        self._folders = cache(self._list_folders)

    def find(self, subset: str, label: str | None, name: str) -> str:
        """Return the path of a video's frames, or where they would usually be."""
        folders = self._folders(subset, label)
        for folder in folders:
            if self._locator.find(str(self._frames_dir / folder), name) is not None:
                return f"{folder}/{name}" if folder else name
        usual = [folder for folder in folders if folder not in ("", *REPLACEMENTS)]
        return f"{usual[0] if usual else label or UNLABELLED_FOLDER}/{name}"

    def _list_folders(self, subset: str, label: str | None) -> list[str]:
        """List the existing folders in the order in which to search them."""
        labels = [] if label is None else [label, label.replace(" ", "_")]
        sides = SUBSET_NAMES[subset]
        nested = [f"{side}/{spelling}" for side in sides for spelling in labels]
        folders = [*labels, *REPLACEMENTS, *nested, *sides, ""]
        return [folder for folder in folders if (self._frames_dir / folder).is_dir()]


def read_lists(lists: dict[str, Path], finder: FrameFinder) -> tuple[list[str], list[Video]]:
    """Read the labels, in the order of their first occurrence in the training list, and all videos;
    test videos may have no label."""
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
        path = finder.find(subset, label, _video_id(place, row))
        videos.append((place, Video(subset, label, path)))
    return labels, unique_videos(videos)


def read_rows(path: Path, *, is_labelled: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place for messages, {column: value}) of each line. Raises UserError."""
    needed = ("label", *COLUMNS) if is_labelled else COLUMNS
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: missing columns in the first line: {', '.join(missing)}")
            for row in reader:
                place = f"{path}: line {reader.line_num}"
                if any(row[name] is None for name in needed):
                    raise UserError(f"{place}: too few values")
                yield place, row
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file: {error}") from None


def _video_id(place: str, row: dict[str, str]) -> str:
    try:
        start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
    except (ValueError, OverflowError):  # the latter for infinity
        raise UserError(
            f"{place}: times {row['time_start']!r}, {row['time_end']!r} are not seconds"
        ) from None
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"
