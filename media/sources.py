"""The videos that a user names: files, folders, patterns, URLs, cameras."""

import glob
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from errors import UserError
from media.ffmpeg_inputs import (
    Argument,
    input_of,
    input_of_device,
    input_of_url,
    redacted,
    shown_url,
)
from media.walking import walk
from utils.command_line import expand_user, is_url, printable

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srtp", "srt", "udp", "tcp")


@dataclass(frozen=True)
class VideoInput:
    """One video. `name` is for messages and free of passwords; `path` is None for a URL."""

    name: str
    arguments: tuple[Argument, ...]  # ffmpeg's, to open it
    path: Path | None = None
    is_live: bool = False  # arrives in real time and can't be read twice
    is_found: bool = False  # in a folder, where files that are no videos are left out

    @property
    def is_file(self) -> bool:
        return self.path is not None and not self.is_live


def find_inputs(texts: Sequence[str], *, live: bool = False) -> list[VideoInput]:
    """Find all videos that a command line names, in its order; those of a folder by name.

    Raises UserError for what does not exist, and for a live stream, which never ends, among
    others.
    """
    inputs = list(_numbered([found for text in texts for found in _find(text, live)]))
    if len(inputs) > 1 and any(found.is_live for found in inputs):
        name = next(found.name for found in inputs if found.is_live)
        raise UserError(f"{name}: a live stream never ends; name no other videos")
    return inputs


def _numbered(inputs: Sequence[VideoInput]) -> Iterator[VideoInput]:
    """Number URLs that differ only in what their names leave out."""
    n_called: Counter[str] = Counter()
    for found in inputs:
        n_called[found.name] += 1
        number = n_called[found.name]
        is_repeat = found.path is None and number > 1
        yield replace(found, name=f"{found.name} ({number})") if is_repeat else found


def _find(text: str, live: bool) -> Iterator[VideoInput]:
    if is_url(text):
        yield _of_url(text, live)
        return
    path = expand_user(text)
    if path.is_dir():
        yield from _of_folder(path)
    elif path.exists():
        yield _of_path(path, live)
    else:
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"{redacted(text)}: no such file or folder, and no file matches it")
        for match in map(Path, matches):
            if match.is_dir():
                yield from _of_folder(match)
            else:
                yield _of_path(match, live)


def _of_url(url: str, live: bool) -> VideoInput:
    is_live = live or url.partition("://")[0].lower() in LIVE_SCHEMES
    return VideoInput(shown_url(url), tuple(input_of_url(url)), is_live=is_live)


def _of_path(path: Path, live: bool) -> VideoInput:
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode):
        return VideoInput(str(path), tuple(input_of_device(path)), path, is_live=True)
    is_live = live or stat.S_ISFIFO(mode)
    return VideoInput(str(path), tuple(input_of(path)), path, is_live=is_live)


def _of_folder(folder: Path) -> Iterator[VideoInput]:
    n_files = 0
    for visit in walk(folder):
        for name in visit.files:
            path, n_files = visit.path / name, n_files + 1
            yield VideoInput(str(path), tuple(input_of(path)), path, is_found=True)
        for skipped in visit.skipped:
            place = printable(str(visit.path / skipped.name))
            print(f"{place}: skipped: {skipped.reason}", file=sys.stderr)
    if not n_files:
        raise UserError(f"{folder}: holds no files")
