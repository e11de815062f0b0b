"""Frames that no video stands behind any more: it was moved, renamed, deleted, or replaced by a
file that has no frames. The manifest tells which these are; indexes leave them out."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from media.extraction import Form
from media.manifest import DONE, GONE, WITH_FRAMES, Manifest, Row, read_rows, target_of
from utils.reading import bad_name

MOVED = "its video is no longer there"


class Orphan(NamedTuple):
    """Frames without a video. `n_frames` is what extraction put there; `is_ours` is False where the
    frames were there before the manifest."""

    source: str
    reason: str
    n_frames: int
    is_ours: bool

    def is_left(self, n_frames: int) -> bool:
        """Whether `n_frames` that lie there now may be these: more were put there by others."""
        return 0 < n_frames <= self.n_frames


class Standing(NamedTuple):
    """The latest that is known of a video."""

    time: float
    status: str
    reason: str


def find_orphans(jpg_dir: Path) -> dict[str, Orphan]:
    """By the place of the frames below JPG_DIR, with slashes and without suffix, whether or not
    they are still there. Raises UserError where a manifest can't be read."""
    latest: dict[str, Standing] = {}
    for row in read_rows(jpg_dir):
        if row.source not in latest or row.time >= latest[row.source].time:
            latest[row.source] = Standing(row.time, row.status, row.reason)
    dead = {target_of(name) for name, now in latest.items() if now.status not in WITH_FRAMES}
    if dead:
        dead -= {target_of(name) for name, now in latest.items() if now.status in WITH_FRAMES}
    owners: dict[str, Row] = {}
    for row in read_rows(jpg_dir) if dead else ():
        target = row.target
        if row.status in WITH_FRAMES and target in dead and bad_name(target) is None:
            if target not in owners or row.time >= owners[target].time:
                owners[target] = row
    return {
        target: Orphan(
            row.source, latest[row.source].reason, row.frames, is_ours=row.ffmpeg is not None
        )
        for target, row in sorted(owners.items())
    }


def note_gone(manifest: Manifest, *, keep: bool) -> None:
    """Write to the manifest which videos are no longer there, after all that are were looked up;
    with `keep`, that they count as there, as do those that were gone before."""
    is_folder = cache(os.path.isdir)
    for row in manifest.unseen():
        if keep and row.status == GONE:
            manifest.append(row.again(status=DONE, reason=""))
        elif not keep and row.status in WITH_FRAMES and _is_gone(row, is_folder):
            manifest.append(row.again(status=GONE, reason=MOVED))


def _is_gone(row: Row, is_folder: Callable[[str], bool]) -> bool:
    """Whether a video is no longer in its folder. Without the folder, a disk that is not mounted
    or videos of another machine, that can't be told."""
    if not row.video_dir or not is_folder(row.video_dir):
        return False
    try:
        os.lstat(os.path.join(row.video_dir, row.source))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def still_there(orphans: Mapping[str, Orphan], jpg_dir: Path, form: Form) -> dict[str, Orphan]:
    """Those whose frames lie in JPG_DIR."""
    return {
        place: orphan
        for place, orphan in orphans.items()
        if orphan.is_left(form.count(jpg_dir / f"{place}{form.suffix}"))
    }


def prune(orphans: Mapping[str, Orphan], jpg_dir: Path, form: Form) -> None:
    """Remove frames that extraction put there, and folders that are empty then. Raises UserError
    where they can't be removed."""
    for place, orphan in orphans.items():
        frames = jpg_dir / f"{place}{form.suffix}"
        if not orphan.is_ours:
            continue
        try:
            form.remove(frames, orphan.n_frames)
        except OSError as error:
            raise UserError(f"{frames}: can't be removed: {error.strerror}") from None
        with suppress(OSError):  # up to the first that is not empty
            for folder in frames.relative_to(jpg_dir).parents[:-1]:
                (jpg_dir / folder).rmdir()
