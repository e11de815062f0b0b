"""Folders for unfinished frames, below JPG_DIR: a locked one per process, and what to do with those
of processes that were killed."""

import errno
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from media.frame_folders import restore_frames

WORK_PREFIX = ".extracting-"
# Files in the folder, locked until its process ends. Whoever removes the folder then locks the
# first; for the second, others only try a shared lock, so its lock always means a running process.
LOCK, SETTINGS = "lock", "settings"
UNTOUCHED = 24 * 3600  # seconds after which a folder that can't be locked is abandoned
REMOVAL_ATTEMPTS = 100


class WorkFolder:
    """The folder of this process. Host name and process number do not tell containers apart."""

    def __init__(self, jpg_dir: Path, settings: str = "") -> None:
        """Make it; `settings` are for others() of other processes. Raises OSError."""
        name = f"{_prefix()}{os.getpid()}-{secrets.token_hex(4)}"
        self.path = jpg_dir.absolute() / name
        self.path.mkdir()
        self._locks = [self._hold(LOCK), self._hold(SETTINGS, settings)]

    def _hold(self, name: str, text: str = "") -> int | None:
        """Write a file that is never there without being locked."""
        new = self.path / f"{name}-new"
        lock = _lock(new, os.O_CREAT)
        if lock is not None:
            os.write(lock, text.encode())
            new.rename(self.path / name)
        return lock

    def others(self) -> Iterator[str]:
        """Yield the settings of the other running processes with a folder here."""
        for folder in self.path.parent.glob(f"{WORK_PREFIX}*"):
            try:
                lock = None if folder == self.path else _lock(folder / SETTINGS, is_shared=True)
            except Held:
                with suppress(OSError):  # it has just ended
                    yield (folder / SETTINGS).read_text(encoding="utf-8")
            else:
                if lock is not None:
                    os.close(lock)

    def remove(self) -> None:
        while self._locks:  # network file systems keep the files that are open
            if (lock := self._locks.pop()) is not None:
                os.close(lock)
        shutil.rmtree(self.path, ignore_errors=True)


def remove_stale_work(jpg_dir: Path) -> None:
    """Remove the work folders of extractions that were killed on this machine. Raises OSError."""
    for folder in jpg_dir.glob(f"{_prefix()}*"):
        try:
            lock = _lock(folder / LOCK)
        except Held:
            continue
        if lock is None and not _is_untouched(folder):
            continue
        try:
            for work in folder.iterdir():
                restore_frames(work)
        except FileNotFoundError:
            if folder.exists():
                raise  # else another process has removed it
        finally:
            if lock is not None:
                os.close(lock)
        _remove_folder(folder)


def _prefix() -> str:
    return f"{WORK_PREFIX}{socket.gethostname()}-"


class Held(Exception):
    """Another process holds the lock."""


def _lock(path: Path, flags: int = 0, *, is_shared: bool = False) -> int | None:
    """Open and lock a file; None if it does not exist or the system has no locks. Raises Held."""
    try:
        import fcntl
    except ImportError:  # on Windows
        return None
    try:
        lock = os.open(path, os.O_RDWR | flags, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise Held from None
        return None
    return lock


def _is_untouched(folder: Path) -> bool:
    """Whether nothing has been written to a folder for long."""
    try:
        places = (folder, *folder.glob("*"), *folder.glob("*/*"))
        newest = max(place.stat().st_mtime for place in places)
    except FileNotFoundError:
        return False
    return newest < time.time() - UNTOUCHED


def _remove_folder(folder: Path) -> None:
    """Remove a folder that an orphaned ffmpeg may still write to: a picture written between the
    listing and the removal keeps the folder alive. Without it, that ffmpeg fails and exits."""
    for _ in range(REMOVAL_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)
