"""Replace a folder of frames by a new one, and keep all other files in it.

Frames are image_00001.jpg …; all other files belong to the user. If killed at any moment, they are
in the old folder, in the new one, or where restore_frames finds them.
"""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from media.frame_names import FRAME_NAME

ATTEMPTS = 10  # another extraction may move the same folder away meanwhile
OLD, PLACE = "old", "place"  # beside new frames: the folder they replace, and a file with its path


class LostRace(Exception):
    """Another extraction has put its frames there."""


def replace_frames(frames: Path, target: Path) -> None:
    """Rename the folder `frames` to `target`. Raises OSError and LostRace."""
    old = frames.with_name(OLD)
    for _ in range(ATTEMPTS):
        try:
            if target.is_dir():
                keep_other_files(target, frames)
                frames.with_name(PLACE).write_bytes(os.fsencode(target.absolute()))
                target.rename(old)
            break
        except FileNotFoundError:
            continue
    try:
        frames.replace(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            restore_frames(frames.parent)
            raise
        keep_other_files(frames, target)
        raise LostRace from None


def restore_frames(work: Path) -> None:
    """Undo a replace_frames that was interrupted, whose new frames are in the folder `work`."""
    old, place = work / OLD, work / PLACE
    if old.is_dir() and place.is_file():
        target = Path(os.fsdecode(place.read_bytes()))
        if target.is_dir():
            keep_other_files(old, target)
        else:
            old.rename(target)


def keep_other_files(old: Path, new: Path) -> None:
    """Link all files of folder `old` that are not frames into `new`, without replacing any."""
    with os.scandir(old) as items:
        entries = list(items)
    for entry in entries:
        place = new / entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if os.path.lexists(place) or (FRAME_NAME.fullmatch(entry.name) and not is_folder):
            continue
        if is_folder:
            shutil.copytree(entry.path, place, symlinks=True, copy_function=_link)
        else:
            _link(entry.path, str(place))


def _link(source: str, place: str) -> None:
    """Hard-link a file, or copy it if the file system has no links."""
    with suppress(OSError, NotImplementedError):
        os.link(source, place, follow_symlinks=False)
        return
    shutil.copy2(source, place, follow_symlinks=False)
