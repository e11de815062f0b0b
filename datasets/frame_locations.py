"""Where the frames of an index's videos lie on disk, and how they are numbered."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.hdf5 import HDF5_SUFFIX
from datasets.index import UNLABELLED, Index
from datasets.records import Entry
from media.frame_names import is_picture_name
from media.verdicts import is_video_name

FIRST_NUMBER = {"jpg": 1, "hdf5": 0, "video": 1}  # number of a video's first frame
UNCOUNTED = "the index has no frame numbers"
UNLABELLED_FOLDER = "test"  # of unlabelled test videos, below FRAMES_DIR


class FrameLocator:
    """Finds the frames of videos: one folder each ("jpg"), one HDF5 file each ("hdf5"), or the
    video files themselves, whatever their suffix ("video"). Lists each parent folder once."""

    def __init__(self, file_type: str = "jpg") -> None:
        self.is_files = file_type != "jpg"
        self.suffix = HDF5_SUFFIX if file_type == "hdf5" else ""
        self.any_suffix = file_type == "video"
        self.what = {"jpg": "folder", "hdf5": "file", "video": "video file"}[file_type]
        self._listings: dict[str, Mapping[str, str]] = {}

    def find(self, folder: str, name: str) -> str | None:
        """Return the path of the frames of video FOLDER/NAME, or None."""
        if self.suffix and not name.endswith(self.suffix):
            name += self.suffix
        listing = self._listings.get(folder)
        if listing is None:
            listing = self._listings[folder] = self._list(folder)
        found = listing.get(name)
        if found is not None:
            return f"{folder}/{found}" if folder else found
        # Some file systems accept a name in several spellings (case, Unicode normalisation).
        path = os.path.join(folder, name)
        exists = os.path.isfile(path) if self.is_files else os.path.isdir(path)
        return path if exists else None

    def _list(self, parent: str) -> Mapping[str, str]:
        """Map each name to itself; video files also by their stem where that is unambiguous."""
        try:
            with os.scandir(parent or ".") as items:
                names = [i.name for i in items if (i.is_file() if self.is_files else i.is_dir())]
        except (OSError, ValueError):  # ValueError: a NUL character in the name
            return {}
        if not self.any_suffix:
            return dict(zip(names, names, strict=True))
        return by_stem(names) | dict(zip(names, names, strict=True))

    def locate(self, index: Index, entry: Entry, frames_dir: str) -> tuple[str, bool]:
        """Return where a video's frames are expected, and whether they exist."""
        if entry.video_path is None:
            unlabelled = entry.label == UNLABELLED
            label = UNLABELLED_FOLDER if unlabelled else index.labels[entry.label]
            places = [(f"{frames_dir}/{label}", entry.video_id)]
            if "/" in entry.video_id:
                places = [_split(f"{frames_dir}/{label}/{entry.video_id}")]
        else:
            name = str(Path(entry.video_path))
            # An absolute path is used as it is.
            places = [_split(os.path.join(frames_dir, name)), _split(name)]
        for folder, name in places:
            found = self.find(folder, name)
            if found is not None:
                return found, True
        absent = "/".join(places[0])
        return absent + ("" if absent.endswith(self.suffix) else self.suffix), False


def segment_fault(
    segment: tuple[int, int] | None, file_type: str, n_frames: int | None = None
) -> str | None:
    """Explain why a segment, [first frame, last frame + 1], can't be read; None if it can.

    `n_frames` is the number of frames on disk, if known.
    """
    if segment is None or segment[0] == segment[1]:
        return UNCOUNTED
    first = FIRST_NUMBER[file_type]
    if segment[0] < first:
        return f"starts at frame {segment[0]} in the index, but {file_type} frames start at {first}"
    if n_frames is not None and segment[1] > first + n_frames:
        last = first + n_frames - 1
        return f"frames up to number {last}, but up to {segment[1] - 1} in the index"
    return None


def by_stem(names: Sequence[str]) -> dict[str, str]:
    """Map files that may be videos, which pictures are not, by their stem, or by their whole name
    if stems collide. A video's suffix wins over others, such as subtitles', as in extraction."""
    names = [name for name in names if not is_picture_name(name)]
    n_files = Counter(os.path.splitext(name)[0] for name in names)
    n_videos = Counter(os.path.splitext(name)[0] for name in names if is_video_name(name))
    found, whole_names = {}, set(names)
    for name in names:
        stem = os.path.splitext(name)[0]
        is_only = n_files[stem] == 1 or (n_videos[stem] == 1 and is_video_name(name))
        found[stem if is_only and stem not in whole_names else name] = name
    return found


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name
