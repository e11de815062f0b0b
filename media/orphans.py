"""Orphans: frames whose video was moved, renamed, deleted, or replaced by a file without frames.
They are found from the manifest; indexes leave them out."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from media.frame_formats import FrameFormat
from media.manifest import DONE, GONE, WITH_FRAMES, Manifest, Row, read_rows, target_of
from utils.reading import bad_name

MOVED = "its video no longer exists"


class Orphan(NamedTuple):
    """Frames without a video. `n_frames` were extracted; `is_ours` is False if the frames are older
    than the manifest."""

    source: str
    reason: str
    n_frames: int
    is_ours: bool

    def matches(self, n_frames: int) -> bool:
        """Whether the `n_frames` on disk can be these; more came from somewhere else."""
        return 0 < n_frames <= self.n_frames


class Latest(NamedTuple):
    """The latest row of a video."""

    time: float
    status: str
    reason: str


def find_orphans(jpg_dir: Path) -> dict[str, Orphan]:
    """Map the place of the frames below JPG_DIR, with slashes and without suffix, to its orphan,
    whether or not the frames still exist. Raises UserError if a manifest can't be read."""
    latest: dict[str, Latest] = {}
    for row in read_rows(jpg_dir):
        if row.source not in latest or row.time >= latest[row.source].time:
            latest[row.source] = Latest(row.time, row.status, row.reason)
    dead = {target_of(name) for name, now in latest.items() if now.status not in WITH_FRAMES}
    if dead:
        dead -= {target_of(name) for name, now in latest.items() if now.status in WITH_FRAMES}
    owners: dict[str, Row] = {}
    for row in read_rows(jpg_dir) if dead else ():
        target = row.target
        is_dead = row.status in WITH_FRAMES and target in dead and bad_name(target) is None
        if is_dead and (target not in owners or row.time >= owners[target].time):
            owners[target] = row
    return {
        target: Orphan(
            row.source, latest[row.source].reason, row.frames, is_ours=row.ffmpeg is not None
        )
        for target, row in sorted(owners.items())
    }


def record_gone(manifest: Manifest, *, keep: bool) -> None:
    """Record the videos that no longer exist, which are those that were not looked up in the
    manifest; with `keep`, record all of them, also from earlier runs, as still valid."""
    is_folder = cache(os.path.isdir)
    for row in manifest.unseen():
        if keep and row.status == GONE:
            manifest.append(row.with_status(DONE))
        elif not keep and row.status in WITH_FRAMES and _is_gone(row, is_folder):
            manifest.append(row.with_status(GONE, MOVED))


def _is_gone(row: Row, is_folder: Callable[[str], bool]) -> bool:
    """Whether a video is no longer in its folder. False if the folder does not exist: a disk may
    not be mounted, or the videos be on another machine."""
    if not row.video_dir or not is_folder(row.video_dir):
        return False
    try:
        os.lstat(os.path.join(row.video_dir, row.source))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def existing(
    orphans: Mapping[str, Orphan], jpg_dir: Path, frame_format: FrameFormat
) -> dict[str, Orphan]:
    """Return the orphans whose frames still lie in JPG_DIR."""
    return {
        place: orphan
        for place, orphan in orphans.items()
        if orphan.matches(frame_format.count(jpg_dir / f"{place}{frame_format.suffix}"))
    }


def prune(orphans: Mapping[str, Orphan], jpg_dir: Path, frame_format: FrameFormat) -> None:
    """Remove orphaned frames that were extracted here, and folders that become empty.

    Raises UserError if they can't be removed.
    """
    for place, orphan in orphans.items():
        frames = jpg_dir / f"{place}{frame_format.suffix}"
        if not orphan.is_ours:
            continue
        try:
            frame_format.remove(frames, orphan.n_frames)
        except OSError as error:
            raise UserError(f"{frames}: can't be removed: {error.strerror}") from None
        with suppress(OSError):  # stops at the first that is not empty
            for folder in frames.relative_to(jpg_dir).parents[:-1]:
                (jpg_dir / folder).rmdir()
