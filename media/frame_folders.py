"""Put a folder of new frames where an older one lies, without loss of what else is in it.

Frames are image_00001.jpg …; all other files are the user's. A kill at any moment leaves them in
the old folder, in the new one, or where restore_frames finds them.
"""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from media.frame_names import FRAME_NAME

TRIES = 10  # another extraction may take the same folder away meanwhile
OLD, PLACE = "old", "place"  # beside new frames: the folder they replace, and where it lay


class Overtaken(Exception):
    """Another extraction has put its frames there."""


def replace_frames(frames: Path, target: Path) -> None:
    """Rename the folder `frames` to `target`. Raises OSError, and Overtaken."""
    old = frames.with_name(OLD)
    for _ in range(TRIES):
        try:
            if target.is_dir():
                keep_others(target, frames)
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
        keep_others(frames, target)
        raise Overtaken from None


def restore_frames(work: Path) -> None:
    """Undo what replace_frames began in the folder `work` and did not end."""
    old, place = work / OLD, work / PLACE
    if old.is_dir() and place.is_file():
        target = Path(os.fsdecode(place.read_bytes()))
        if target.is_dir():
            keep_others(old, target)
        else:
            old.rename(target)


def keep_others(old: Path, new: Path) -> None:
    """Give a folder all files of another one that are no frames, if it has none of their name."""
    with os.scandir(old) as items:
        entries = list(items)
    for entry in entries:
        place = new / entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if os.path.lexists(place) or FRAME_NAME.fullmatch(entry.name) and not is_folder:
            continue
        if is_folder:
            shutil.copytree(entry.path, place, symlinks=True, copy_function=_link)
        else:
            _link(entry.path, str(place))


def _link(source: str, place: str) -> None:
    """A second name for a file, or a copy where the file system has none."""
    with suppress(OSError, NotImplementedError):
        os.link(source, place, follow_symlinks=False)
        return
    shutil.copy2(source, place, follow_symlinks=False)
