"""The manifest of an extraction: one JSON line per video, beside the frames.

JPG_DIR/manifest.jsonl, or one file per shard. All of them are read; a video's latest row counts.
"""

import errno
import json
import os
import sys
import time
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Annotated, NamedTuple

import msgspec
from msgspec.structs import asdict, astuple, replace

from errors import UserError
from media.ffmpeg_log import FfmpegRun
from media.shard import WHOLE, Shard, hash_of
from utils.reading import BINARY, Finite, bad_name

DONE, PARTIAL, FAILED, LEFT_OUT = "done", "partial", "failed", "left_out"
GONE = "gone"  # extracted earlier; the video no longer exists
STATUSES = (DONE, PARTIAL, FAILED, LEFT_OUT, GONE)
Status = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(STATUSES)})$")]
WITH_FRAMES = (DONE, PARTIAL)
FILES = "manifest*.jsonl"
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Arguments(msgspec.Struct, frozen=True, gc=False):
    """The settings that a video's frames depend on."""

    size: int
    fps: float | None = None  # None: every decoded frame
    quality: int | None = None  # None: ffmpeg's own
    interpolate: bool = False


class Row(msgspec.Struct, frozen=True, gc=False):
    """The result of one video; width and height are those of the frames, rate and seconds those of
    the video."""

    source: str  # below VIDEO_DIR
    n_bytes: Count
    mtime_ns: Integer
    arguments: Arguments
    status: Status
    reason: str = ""  # what is wrong with it
    complaint: str = ""  # ffmpeg's last error line
    frames: Count = 0
    width: Count | None = None
    height: Count | None = None
    rate: Finite | None = None
    tbr: Finite | None = None  # see FfmpegRun
    seconds: Finite | None = None
    ffmpeg: str | None = None  # version; None: the frames had no row
    video_dir: str = ""  # absolute; "" in rows of earlier versions
    time: Finite = 0  # when it was appended, after its frames were moved into place

    @property
    def target(self) -> str:
        """The place of its frames below JPG_DIR, without a suffix."""
        return target_of(self.source)

    @property
    def key(self) -> int:
        return key_of(self.n_bytes, self.mtime_ns, self.arguments)

    def with_status(self, status: str, reason: str = "") -> "Row":
        return replace(self, status=status, reason=reason)

    def with_run(self, ran: FfmpegRun) -> "Row":
        """Add what ffmpeg logged about the video and itself."""
        return replace(
            self,
            complaint=ran.errors[-1] if ran.errors else "",
            rate=ran.rate,
            tbr=ran.tbr,
            seconds=ran.seconds,
            ffmpeg=ran.version,
        )

    def with_frames(self, n_frames: int, size: tuple[int, int] | None) -> "Row":
        """Add the number of frames, and width and height of the first one."""
        width, height = size or (None, None)
        return replace(self, frames=n_frames, width=width, height=height)

    def to_line(self) -> bytes:
        """Encode as one line of ASCII JSON; bytes that are not UTF-8 become surrogates."""
        content = asdict(self) | {"arguments": asdict(self.arguments)}
        return json.dumps(content, allow_nan=False).encode("ascii") + b"\n"


_DECODER = msgspec.json.Decoder(Row)


def target_of(source: str) -> str:
    """A/a.avi -> A/a, with slashes. Removes one suffix; ".a" and "a." have none."""
    path = source.replace(os.sep, "/")
    dot = path.rfind(".")
    return path[:dot] if path.rfind("/") + 1 < dot < len(path) - 1 else path


def key_of(n_bytes: int, mtime_ns: int, arguments: Arguments) -> int:
    """Hash what a video's frames depend on: if it differs, they have to be extracted again."""
    return hash_of(repr((n_bytes, mtime_ns, *astuple(arguments))).encode())


def read_rows(jpg_dir: Path) -> Iterator[Row]:
    """Read all rows of a folder of frames; incomplete lines are skipped. Raises UserError."""
    try:
        for path in sorted(jpg_dir.glob(FILES)):
            with path.open("rb") as lines:
                yield from (row for line in lines if (row := _parse(line)) is not None)
    except OSError as error:
        raise UserError(f"{error.filename}: can't be used: {error.strerror}") from None


class Previous(NamedTuple):
    """What a later run needs to know of a row: about 300 bytes per video."""

    time: float
    key: int  # see key_of
    frames: int
    status: str
    reason: str  # only if it has no frames
    video_dir: str


class Owner(NamedTuple):
    """The video that a folder's frames were extracted from, by the latest row with frames."""

    time: float
    source: str
    key: int
    frames: int
    ffmpeg: str | None
    video_dir: str


class Manifest:
    """Reads the rows of a folder and appends to the shard's file. A context manager."""

    def __init__(self, jpg_dir: Path, shard: Shard = WHOLE) -> None:
        self._jpg_dir, self._shard, self._lock = jpg_dir, shard, Lock()
        self._previous: dict[int, Previous] = {}
        self._last_time = 0.0
        name = f"-{shard.number:05d}-of-{shard.total:05d}" if shard != WHOLE else ""
        self._path = jpg_dir / f"manifest{name}.jsonl"
        for row in read_rows(jpg_dir):
            self._last_time = max(self._last_time, row.time)
            if shard.holds(row.source):
                self._remember(row)
        self._unseen, self._moved = set(self._previous), set[int]()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | BINARY, 0o666)
            self._end_incomplete_line()
        except OSError as error:
            raise UserError(f"{error.filename}: can't be used: {error.strerror}") from None

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def previous(self, source: str) -> Previous | None:
        """Return what earlier runs recorded of an existing video, and mark it as seen."""
        name = _hash(source)
        self._unseen.discard(name)
        previous = self._previous.get(name)
        return None if previous is None or previous.status == GONE else previous

    def owner(self, source: str) -> Owner | None:
        """Return the owner of the frames that lie where those of `source` would go. Any thread may
        ask."""
        with self._lock:
            return self._owners.get(_hash(target_of(source)))

    def unseen(self) -> Iterator[Row]:
        """Yield the rows of videos that previous() was not asked for."""
        return self._latest(self._unseen)

    def confirm(self, source: str, video_dir: str) -> None:
        """Note that an unchanged video is in `video_dir`, in case its row names a folder that no
        longer exists, or none."""
        previous = self._previous[name := _hash(source)]
        if previous.video_dir != video_dir and not os.path.isdir(previous.video_dir):
            self._moved.add(name)

    def write_moved(self, video_dir: str) -> None:
        """Write rows with the new folder for the videos that confirm() noted."""
        for row in self._latest(self._moved):
            self.append(replace(row, video_dir=video_dir))

    def _latest(self, names: Collection[int]) -> Iterator[Row]:
        """Yield the latest rows, as of the start, of videos given by the hashes of their names."""
        for row in read_rows(self._jpg_dir) if names else ():
            previous = self._previous.get(name := _hash(row.source))
            if name in names and previous is not None and row.time == previous.time:
                yield row

    def append(self, row: Row) -> None:
        """Append a row with a single write, so that rows are never mixed up. Its time becomes now,
        or after that of all earlier rows if they were written while a clock was ahead."""
        self._last_time = round(max(time.time(), self._last_time + 0.001), 3)
        line = replace(row, time=self._last_time).to_line()
        if os.write(self._file, line) < len(line):  # the next run ends the incomplete line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _remember(self, row: Row) -> None:
        name = _hash(row.source)
        previous = self._previous.get(name)
        if previous is None or row.time >= previous.time:
            reason = "" if row.status in WITH_FRAMES else row.reason
            self._previous[name] = Previous(
                row.time, row.key, row.frames, row.status, reason, sys.intern(row.video_dir)
            )

    @cached_property
    def _owners(self) -> dict[int, Owner]:
        """By the hash of the target, over all shards; read only if a video is to be
        extracted."""
        owners: dict[int, Owner] = {}
        for row in read_rows(self._jpg_dir):
            name = _hash(row.target)
            if row.status in WITH_FRAMES and not (name in owners and row.time < owners[name].time):
                place = sys.intern(row.video_dir)
                owners[name] = Owner(row.time, row.source, row.key, row.frames, row.ffmpeg, place)
        return owners

    def _end_incomplete_line(self) -> None:
        size = os.fstat(self._file).st_size
        if not size:
            return
        os.lseek(self._file, size - 1, os.SEEK_SET)
        if os.read(self._file, 1) != b"\n":
            os.write(self._file, b"\n")


def _hash(name: str) -> int:
    return hash_of(os.fsencode(name))


def _parse(line: bytes) -> Row | None:
    """Parse a line; None if it is not a row."""
    try:
        row = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:  # the decoder rejects names that are not UTF-8
            row = msgspec.convert(json.loads(line), Row)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
    return row if b'"time"' in line and bad_name(row.source, is_path=True) is None else None
