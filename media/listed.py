"""The files that the table of --only lists, found by the rules of csv_json."""

import os
import posixpath
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from media.manifest import target_of
from media.verdicts import is_video_name
from media.walking import walk
from utils.reading import shown_name
from utils.spreadsheet import read_spreadsheet, spellings


class Listed(NamedTuple):
    """Names of files below VIDEO_DIR, and the rows of the table that no file matches."""

    names: frozenset[str]
    unmatched: tuple[str, ...] = ()


def read_listed(table: Path, video_dir: Path, jpg_dir: Path) -> Listed:
    """Find the files that the column path of a table lists, with or without a suffix. Raises
    UserError if it is not a table."""
    rows = read_spreadsheet(table, ["path"], [])
    paths = [_path_below(video_dir, row.cells["path"]) for row in rows]
    towards = [name for path in paths for name in _names_of(path)]
    found = [
        str((visit.path / file).relative_to(video_dir))
        for visit in walk(video_dir, excluded=jpg_dir, towards=towards)
        for file in visit.files
    ]
    files = {name.replace(os.sep, "/"): name for name in found}
    by_target: dict[str, list[str]] = {}
    for name in files:
        by_target.setdefault(target_of(name), []).append(name)
    names, unmatched = set(), []
    for row, path in zip(rows, paths, strict=True):
        if (match := _find(path, files, by_target)) is None:
            unmatched.append(f"line {row.line}: {shown_name(row.cells['path'])}")
        else:
            names.add(files[match])
    return Listed(frozenset(names), tuple(unmatched))


def _path_below(video_dir: Path, path: str) -> str:
    if not os.path.isabs(path):
        return path
    return os.path.relpath(os.path.realpath(path), os.path.realpath(video_dir))


def _names_of(path: str) -> list[str]:
    """Return the names that a path of the table may stand for."""
    return [posixpath.normpath(spelling) for spelling in spellings(path)]


def _find(path: str, files: Mapping[str, str], by_target: Mapping[str, list[str]]) -> str | None:
    for name in _names_of(path):
        if name in files:
            return name
        if name in by_target:  # written without a suffix; videos win over other files
            return max(by_target[name], key=is_video_name)
        for other in by_target.get(target_of(name), ()):
            if _same_spelling(other) == _same_spelling(name):  # a.AVI
                return other
    return None


def _same_spelling(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
