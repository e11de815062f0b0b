"""The manifest of an extraction: one JSON line per finished video, beside the frames.

JPG_DIR/manifest.jsonl, or one file per shard; all are read, and a video's latest row counts.
"""

import errno
import json
import os
import sys
import time
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec.structs import asdict, astuple, replace

from errors import UserError
from media.ffmpeg import FfmpegRun
from media.shard import WHOLE, Shard, hash_of
from utils.reading import BINARY, Finite, bad_name

DONE, PARTIAL, FAILED, LEFT_OUT = "done", "partial", "failed", "left_out"
GONE = "gone"  # extracted once; the video is no longer in its folder
STATUSES = (DONE, PARTIAL, FAILED, LEFT_OUT, GONE)
Status = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(STATUSES)})$")]
WITH_FRAMES = (DONE, PARTIAL)
FILES = "manifest*.jsonl"
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Arguments(msgspec.Struct, frozen=True, gc=False):
    """What the frames of a video depend on, besides the video."""

    size: int
    fps: float | None = None  # None: every decoded frame
    quality: int | None = None  # None: ffmpeg's own
    interpolate: bool = False


class Row(msgspec.Struct, frozen=True, gc=False):
    """What became of one video. Width and height are the frames', rate and seconds the source's."""

    source: str  # below VIDEO_DIR
    n_bytes: Count
    mtime_ns: Integer
    arguments: Arguments
    status: Status
    reason: str = ""  # what is wrong with it, in our words or ffmpeg's
    complaint: str = ""  # ffmpeg's last error line
    frames: Count = 0
    width: Count | None = None
    height: Count | None = None
    rate: Finite | None = None
    seconds: Finite | None = None
    ffmpeg: str | None = None  # None: these frames were there before the manifest
    video_dir: str = ""  # absolute; "": not known, rows of earlier versions
    time: Finite = msgspec.field(default_factory=lambda: round(time.time(), 3))

    @property
    def target(self) -> str:
        """The place of its frames below JPG_DIR, without the suffix of their form."""
        return target_of(self.source)

    @property
    def key(self) -> int:
        return key_of(self.n_bytes, self.mtime_ns, self.arguments)

    def judged(self, status: str, reason: str = "") -> "Row":
        return replace(self, status=status, reason=reason)

    def told_by(self, ran: FfmpegRun) -> "Row":
        """With what ffmpeg said of the video and of itself."""
        return replace(
            self,
            complaint=ran.complaints[-1] if ran.complaints else "",
            rate=ran.rate,
            seconds=ran.seconds,
            ffmpeg=ran.version,
        )

    def with_frames(self, n_frames: int, size: tuple[int, int] | None) -> "Row":
        """With the number of frames, and width and height of the first one."""
        width, height = size or (None, None)
        return replace(self, frames=n_frames, width=width, height=height)

    def again(self, **changes: Any) -> "Row":
        """A later row of the same video."""
        return replace(self, time=round(time.time(), 3), **changes)

    def to_line(self) -> bytes:
        """One line of ASCII; names that are no text keep their bytes as surrogates."""
        content = asdict(self) | {"arguments": asdict(self.arguments)}
        return json.dumps(content, allow_nan=False).encode("ascii") + b"\n"


_DECODER = msgspec.json.Decoder(Row)


def target_of(source: str) -> str:
    """A/a.avi -> A/a, with slashes. Only the last suffix goes, and none of ".a" and "a."."""
    path = source.replace(os.sep, "/")
    dot = path.rfind(".")
    return path[:dot] if path.rfind("/") + 1 < dot < len(path) - 1 else path


def key_of(n_bytes: int, mtime_ns: int, arguments: Arguments) -> int:
    """Differs where a video has to be extracted again."""
    return hash_of(repr((n_bytes, mtime_ns, *astuple(arguments))).encode())


def read_rows(jpg_dir: Path) -> Iterator[Row]:
    """All rows of a folder of frames; lines torn by a kill are passed over. Raises UserError."""
    try:
        for path in sorted(jpg_dir.glob(FILES)):
            with path.open("rb") as lines:
                yield from (row for line in lines if (row := _parse(line)) is not None)
    except OSError as error:
        raise UserError(f"{error.filename}: can't be used: {error.strerror}") from None


class Known(NamedTuple):
    """What a later run needs of a row: about 300 bytes a video."""

    time: float
    key: int  # of the source's size and mtime and the arguments
    frames: int
    status: str
    reason: str  # kept of what has no frames only
    video_dir: str


class Owner(NamedTuple):
    """The video whose frames lie in a folder, as the latest row with frames tells."""

    time: float
    key: int
    frames: int
    ffmpeg: str | None


class Manifest:
    """Reads the rows of a folder, and appends to the shard's file. A context manager."""

    def __init__(self, jpg_dir: Path, shard: Shard = WHOLE) -> None:
        self._jpg_dir, self._shard = jpg_dir, shard
        self._known: dict[int, Known] = {}
        name = f"-{shard.number:05d}-of-{shard.total:05d}" if shard != WHOLE else ""
        self._path = jpg_dir / f"manifest{name}.jsonl"
        for row in read_rows(jpg_dir):
            if shard.holds(row.source):
                self._remember(row)
        self._unseen, self._moved = set(self._known), set[int]()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | BINARY, 0o666)
            self._end_torn_line()
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

    def known(self, source: str) -> Known | None:
        """What is known of a video that is there; None where it was gone before this run."""
        name = _hash(source)
        self._unseen.discard(name)
        known = self._known.get(name)
        return None if known is None or known.status == GONE else known

    def owner(self, source: str) -> Owner | None:
        """The video to which the frames belong that lie where those of `source` go."""
        return self._owners.get(_hash(target_of(source)))

    def unseen(self) -> Iterator[Row]:
        """The rows of videos that known() was not asked for."""
        return self._latest(self._unseen)

    def confirm(self, source: str, video_dir: str) -> None:
        """Take note that a video, unchanged, is in `video_dir`: its row may name a folder that is
        gone, or none."""
        known = self._known[name := _hash(source)]
        if known.video_dir != video_dir and not os.path.isdir(known.video_dir):
            self._moved.add(name)

    def write_moved(self, video_dir: str) -> None:
        """Write rows that name its folder for the videos of which confirm() took note."""
        for row in self._latest(self._moved):
            self.append(row.again(video_dir=video_dir))

    def _latest(self, names: Collection[int]) -> Iterator[Row]:
        """The rows known at the start of some videos, by the hashes of their names."""
        for row in read_rows(self._jpg_dir) if names else ():
            known = self._known.get(name := _hash(row.source))
            if name in names and known is not None and row.time == known.time:
                yield row

    def append(self, row: Row) -> None:
        """One write, so that neither a kill nor another process can mix two rows."""
        line = row.to_line()
        if os.write(self._file, line) < len(line):  # the next run ends the torn line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _remember(self, row: Row) -> None:
        name = _hash(row.source)
        earlier = self._known.get(name)
        if earlier is None or row.time >= earlier.time:
            reason = "" if row.status in WITH_FRAMES else row.reason
            self._known[name] = Known(
                row.time, row.key, row.frames, row.status, reason, sys.intern(row.video_dir)
            )

    @cached_property
    def _owners(self) -> dict[int, Owner]:
        """By the hash of the target, over all shards; read when the first new video comes."""
        owners: dict[int, Owner] = {}
        for row in read_rows(self._jpg_dir):
            name = _hash(row.target)
            if row.status in WITH_FRAMES and not (name in owners and row.time < owners[name].time):
                owners[name] = Owner(row.time, row.key, row.frames, row.ffmpeg)
        return owners

    def _end_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        if not size:
            return
        os.lseek(self._file, size - 1, os.SEEK_SET)
        if os.read(self._file, 1) != b"\n":
            os.write(self._file, b"\n")


def _hash(name: str) -> int:
    return hash_of(os.fsencode(name))


def _parse(line: bytes) -> Row | None:
    """None for what is no row."""
    try:
        row = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:  # names that are not UTF-8, which the decoder refuses
            row = msgspec.convert(json.loads(line), Row)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
    return row if b'"time"' in line and bad_name(row.source, is_path=True) is None else None
