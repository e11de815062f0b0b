"""What the user names -> videos to open: files, folders, patterns, URLs, cameras."""

import glob
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from errors import UserError
from util_scripts.cli import printable
from util_scripts.ffmpeg import input_of, input_of_device, input_of_url
from util_scripts.walking import walk

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srtp", "srt", "udp", "tcp")


@dataclass(frozen=True)
class VideoInput:
    """One video. `name` is how the user knows it, without passwords; `path` is None for a URL."""

    name: str
    arguments: tuple[str, ...]  # that open it
    path: Path | None = None
    url: str = ""
    is_live: bool = False  # it comes in its own time, and can't be read twice
    is_found: bool = False  # in a folder: what is no video is left out there

    @property
    def is_file(self) -> bool:
        return self.path is not None and not self.is_live

    def told(self, reason: str) -> str:
        """ffmpeg's words without the passwords of the URL."""
        return reason.replace(self.url, self.name) if self.url else reason


def find_inputs(texts: Sequence[str], *, live: bool = False) -> list[VideoInput]:
    """Every video of a command line, in its order; a folder's in name order.

    Raises UserError for what does not exist, and for a live stream beside other videos: it never
    ends.
    """
    inputs = [found for text in texts for found in _find(text, live)]
    if len(inputs) > 1 and any(found.is_live for found in inputs):
        name = next(found.name for found in inputs if found.is_live)
        raise UserError(f"{name}: a live stream has no end: give it alone")
    return inputs


def _find(text: str, live: bool) -> Iterator[VideoInput]:
    if URL.match(text) and not text.lower().startswith("file://"):
        yield _of_url(text, live)
        return
    path = Path(text).expanduser()
    if path.is_dir():
        yield from _of_folder(path)
    elif path.exists():
        yield _of_path(path, live)
    else:
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"{text}: no such file or folder, and nothing matches it")
        for match in map(Path, matches):
            if match.is_dir():
                yield from _of_folder(match)
            else:
                yield _of_path(match, live)


def _of_url(url: str, live: bool) -> VideoInput:
    parts = urlsplit(url)
    name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    is_live = live or parts.scheme.lower() in LIVE_SCHEMES
    return VideoInput(name, tuple(input_of_url(url)), url=url, is_live=is_live)


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
            print(f"{place}: passed over: {skipped.reason}", file=sys.stderr)
    if not n_files:
        raise UserError(f"{folder}: holds no files")
