"""Walk a user's folder: visit every folder and file once, and name what is skipped."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from errors import UserError

UNREADABLE = "can't be read"
JUNK = frozenset(  # files and folders of operating systems and storage devices, in lower case
    {
        "$recycle.bin",
        "@eadir",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "icon\r",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)


class Skipped(NamedTuple):
    """Something that is not visited, and why; `is_lost` if it may hold data."""

    name: str
    reason: str
    is_lost: bool = False


class Visit(NamedTuple):
    """One folder; the names in it are sorted. `aliases` maps links to files that are also visited
    under another path to that path, below the root."""

    path: Path
    files: list[str]
    folders: list[str]
    skipped: list[Skipped]
    aliases: dict[str, str]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is skipped silently: hidden, or an operating system's."""
    return name.startswith(".") or name.lower() in JUNK


def walk(
    root: Path, excluded: Path | None = None, *, towards: Collection[str] | None = None
) -> Iterator[Visit]:
    """Visit `root` and the folders below it in name order, except `excluded` and hidden ones. With
    `towards`, paths below `root`, only the folders that lead to these are visited.

    Links are followed, but no folder is visited twice: skipped are links to folders that are
    visited anyway, to folders above `root`, and second links to a folder. Raises UserError if
    `root` can't be read.
    """
    leading = None
    if towards is not None:
        leading = {parent for path in towards for parent in PurePath(path).parents}
    return _Walker(root, excluded, leading).visits()


class _Walker:
    def __init__(
        self, root: Path, excluded: Path | None, leading: Collection[PurePath] | None
    ) -> None:
        self._root, self._real_root = root, root.resolve()
        self._leading = leading
        self._excluded = excluded.resolve() if excluded and excluded.exists() else None
        self._excluded_identity = None if self._excluded is None else _identity(self._excluded)
        try:
            self._folders = {_identity(root): root}
        except OSError as error:
            raise UserError(f"{root}: {UNREADABLE}: {error.strerror}") from None
        self._linked_files: dict[tuple[int, int], str] = {}

    def visits(self) -> Iterator[Visit]:
        waiting = [self._root]
        while waiting:
            visit = self._visit(waiting.pop())
            folders = (visit.path / name for name in reversed(visit.folders))
            waiting += [folder for folder in folders if self._leads_on(folder)]
            yield visit

    def _leads_on(self, folder: Path) -> bool:
        return self._leading is None or folder.relative_to(self._root) in self._leading

    def _visit(self, folder: Path) -> Visit:
        visit = Visit(folder, [], [], [], {})
        try:
            with os.scandir(folder) as items:
                entries = sorted(items, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"{UNREADABLE}: {error.strerror}"
            if folder == self._root:
                raise UserError(f"{folder}: {reason}") from None
            visit.skipped.append(Skipped("", reason, is_lost=True))
            return visit
        for entry in entries:
            if not is_hidden(entry.name):
                self._sort_in(visit, entry)
        return visit

    def _sort_in(self, visit: Visit, entry: os.DirEntry[str]) -> None:
        """Add one entry of a folder to the list where it belongs."""
        try:
            if entry.is_dir():
                reason = self._why_not_visited(entry)
                if reason is None:
                    visit.folders.append(entry.name)
                elif reason:
                    visit.skipped.append(Skipped(entry.name, reason))
            elif entry.is_file():
                visit.files.append(entry.name)
                if entry.is_symlink() and (other := self._alias_of(entry)) is not None:
                    visit.aliases[entry.name] = other
            elif entry.is_symlink() and not os.path.exists(entry.path):
                visit.skipped.append(Skipped(entry.name, "a broken link", is_lost=True))
            else:
                visit.skipped.append(Skipped(entry.name, "neither a file nor a folder"))
        except OSError as error:  # a link to itself, or into a folder without permission
            reason = f"{UNREADABLE}: {error.strerror}"
            visit.skipped.append(Skipped(entry.name, reason, is_lost=True))

    def _why_not_visited(self, entry: os.DirEntry[str]) -> str | None:
        """Return None for a folder to visit, "" for the excluded one."""
        path, identity = Path(entry.path), _identity(entry.path)
        if identity == self._excluded_identity:
            return ""
        if entry.is_symlink():
            real = path.resolve()
            if self._real_root.is_relative_to(real):
                return f"a link to {real}, which contains this folder"
            if (walked := self._path_if_walked(real)) is not None:
                return f"the same folder as {walked}"
        first = self._folders.setdefault(identity, path)
        return None if first == path else f"the same folder as {first.relative_to(self._root)}"

    def _alias_of(self, entry: os.DirEntry[str]) -> str | None:
        """Return another path below the root at which the linked file is visited."""
        walked = self._path_if_walked(Path(entry.path).resolve())
        if walked is not None:
            return walked
        own = str(Path(entry.path).relative_to(self._root))
        first = self._linked_files.setdefault(_identity(entry.path), own)
        return None if first == own else first

    def _path_if_walked(self, real: Path) -> str | None:
        """Return the path below the root of something that is visited there, not by a link."""
        if not real.is_relative_to(self._real_root):
            return None
        if self._excluded is not None and real.is_relative_to(self._excluded):
            return None
        below = real.relative_to(self._real_root)
        return None if any(map(is_hidden, below.parts)) else str(below)


def _identity(path: str | Path) -> tuple[int, int]:
    """Return what all paths to one file or folder have in common."""
    status = os.stat(path)
    return status.st_dev, status.st_ino
