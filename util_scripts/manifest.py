"""The manifest of an extraction: one JSON line per finished video, beside the frames.

JPG_DIR/manifest.jsonl, or one file per shard; all are read, and a video's latest row counts.
"""

import errno
import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from errors import UserError
from util_scripts.ffmpeg import FfmpegRun
from util_scripts.shard import WHOLE, Shard, hash_of

DONE, PARTIAL, FAILED, LEFT_OUT = "done", "partial", "failed", "left_out"
STATUSES = (DONE, PARTIAL, FAILED, LEFT_OUT)
FILES = "manifest*.jsonl"


class Arguments(NamedTuple):
    """What the frames of a video depend on, besides the video."""

    size: int
    fps: float | None = None  # None: every decoded frame
    quality: int | None = None  # None: ffmpeg's own
    interpolate: bool = False


@dataclass(frozen=True)
class Row:
    """What became of one video. Width and height are the frames', rate and seconds the source's."""

    source: str  # below VIDEO_DIR
    n_bytes: int
    mtime_ns: int
    arguments: Arguments
    status: str
    reason: str = ""  # what is wrong with it, in our words or ffmpeg's
    complaint: str = ""  # ffmpeg's last error line
    frames: int = 0
    width: int | None = None
    height: int | None = None
    rate: float | None = None
    seconds: float | None = None
    ffmpeg: str | None = None  # None: these frames were there before the manifest
    time: float = field(default_factory=lambda: round(time.time(), 3))

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

    def to_line(self) -> bytes:
        """One line of ASCII; names that are no text keep their bytes as surrogates."""
        content = asdict(self) | {"arguments": self.arguments._asdict()}
        return json.dumps(content).encode("ascii") + b"\n"


class Known(NamedTuple):
    """What a later run needs of a row: about 300 bytes a video."""

    time: float
    key: int  # of the source's size and mtime and the arguments
    frames: int
    status: str
    reason: str  # kept for failures only


def key_of(n_bytes: int, mtime_ns: int, arguments: Arguments) -> int:
    """Differs where a video has to be extracted again."""
    return hash_of(repr((n_bytes, mtime_ns, *arguments)).encode())


class Manifest:
    """Reads the rows of a folder, and appends to the shard's file. A context manager."""

    def __init__(self, jpg_dir: Path, shard: Shard = WHOLE) -> None:
        self._shard = shard
        self._known: dict[int, Known] = {}
        name = f"-{shard.number:05d}-of-{shard.total:05d}" if shard != WHOLE else ""
        self._path = jpg_dir / f"manifest{name}.jsonl"
        try:
            for path in sorted(jpg_dir.glob(FILES)):
                self._read(path)
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
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
        return self._known.get(hash_of(os.fsencode(source)))

    def append(self, row: Row) -> None:
        """One write, so that neither a kill nor another process can mix two rows."""
        line = row.to_line()
        if os.write(self._file, line) < len(line):  # the next run ends the torn line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _read(self, path: Path) -> None:
        with path.open("rb") as lines:
            for line in lines:
                if (parsed := _parse(line)) is None:  # torn by a kill
                    continue
                source, known = parsed
                if not self._shard.holds(source):
                    continue
                name = hash_of(os.fsencode(source))
                earlier = self._known.get(name)
                if earlier is None or known.time >= earlier.time:
                    self._known[name] = known

    def _end_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


def _parse(line: bytes) -> tuple[str, Known] | None:
    """(source, what is known), or None for what is no row."""
    try:
        row: dict[str, Any] = json.loads(line)
        key = key_of(row["n_bytes"], row["mtime_ns"], Arguments(**row["arguments"]))
        status = next(status for status in STATUSES if status == row["status"])
        reason = row["reason"] if status == FAILED else ""
        return row["source"], Known(float(row["time"]), key, int(row["frames"]), status, reason)
    except (ValueError, KeyError, TypeError, StopIteration):
        return None
