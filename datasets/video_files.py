"""Read frames of video files as JPEG: the same bytes that generate_video_jpgs --quality 2 writes,
because the same ffmpeg command makes them. They count from 1, as in a folder of JPGs, so the same
index works for both. Free of torch."""

import os
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain, count
from pathlib import Path
from typing import IO

from errors import UserError
from media.extraction import frame_arguments
from media.ffmpeg import Ffmpeg, Stream
from media.manifest import FAILED, LEFT_OUT, Arguments
from media.verdicts import judge, why_no_video

SIZE = 240  # of the shorter side in pixels: the default of generate_video_jpgs
QUALITY = 2  # ffmpeg's best
TO_PIPE = ("-c:v", "mjpeg", "-f", "mpjpeg", "-")
LENGTH = b"Content-length:"  # header of a part of an mpjpeg stream
MAX_CACHED_FRAMES = 256  # frames that an open video keeps as JPEG, for overlapping windows
MIN_GAP = 4  # frames; smaller gaps cost less to read than to skip
MAX_RUNS = 64  # terms of an expression that ffmpeg evaluates for every frame

Run = tuple[int, int | None]  # first and last number; None: to the end
Frames = Generator[tuple[int, bytes], None, None]  # number, JPEG
WHOLE: Sequence[Run] = [(1, None)]


class VideoError(Exception):
    """Why a frame of a video file can't be read; the message does not name the file."""


def count_video(path: Path, ffmpeg: Ffmpeg | None = None) -> int:
    """Count the frames that extraction would write, by decoding all of them.

    Raises UserError if there are none.
    """
    n_frames = 0
    verdict = why_no_video(path)
    if verdict is None:
        arguments = frame_arguments(path, Arguments(SIZE))
        ran = (ffmpeg or Ffmpeg()).run([*arguments, "-f", "null", "-"])
        n_frames = ran.n_frames
        verdict = judge(ran, n_frames=n_frames)
    if verdict.status in (FAILED, LEFT_OUT):
        raise UserError(f"{path}: {verdict.reason}")
    return n_frames


def read_jpegs(path: Path, numbers: Collection[int]) -> dict[int, bytes]:
    """Read frames of a video file by number. Raises VideoError.

    Decodes from the beginning of the file: seeking is not exact in all containers.
    """
    with closing(_decode(path, _runs(sorted(set(numbers))))) as frames:
        return _pick(frames, numbers)


class OpenVideo:
    """A video file that is read step by step, mostly forwards; ffmpeg waits in between."""

    def __init__(self, path: Path, first: int) -> None:
        self._path, self._pid = path, os.getpid()
        self._position = first - 1  # number of the last frame from ffmpeg
        self._cache: dict[int, bytes] = {}
        self._decoded = _decode(path, [(first, None)])
        self._error: VideoError | None = None  # that ended reading

    def can_read(self, path: Path, numbers: Collection[int]) -> bool:
        """Whether all these frames are cached or still to come, and ffmpeg is this process's."""
        is_ours = path == self._path and self._pid == os.getpid()
        return is_ours and all(n > self._position or n in self._cache for n in numbers)

    def read(self, numbers: Collection[int]) -> dict[int, bytes]:
        """Read frames by number, if can_read allows it. Raises VideoError."""
        cached = {number: self._cache[number] for number in numbers if number in self._cache}
        return cached | _pick(self, set(numbers) - cached.keys())

    def close(self) -> None:
        """End ffmpeg, if this process started it."""
        if self._pid == os.getpid():
            self._decoded.close()

    def __iter__(self) -> "OpenVideo":
        return self

    def __next__(self) -> tuple[int, bytes]:
        """Return the next frame. After an error, the same error for every later frame."""
        if self._error is not None:
            raise self._error
        try:
            self._position, data = next(self._decoded)
        except VideoError as error:
            self._error = error
            raise
        self._cache[self._position] = data
        if len(self._cache) > MAX_CACHED_FRAMES:
            del self._cache[next(iter(self._cache))]
        return self._position, data


def read_parts(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the JPEGs of ffmpeg's mpjpeg stream, except a truncated part."""
    while line := stream.readline():
        if not line.startswith(LENGTH):
            continue
        length = int(line[len(LENGTH) :])
        stream.readline()  # the blank line before the data
        data = stream.read(length)
        if len(data) == length:
            yield data


def _pick(frames: Iterator[tuple[int, bytes]], numbers: Collection[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    missing = set(numbers)
    while missing:
        try:
            number, data = next(frames)
        except VideoError as error:
            raise VideoError(f"frame {min(missing)} can't be read: {error}") from None
        except StopIteration:
            raise VideoError(
                f"frame {min(missing)} can't be read: reading was broken off"
            ) from None
        if number in missing:
            missing.remove(number)
            found[number] = data
    return found


def _runs(numbers: Sequence[int]) -> list[Run]:
    """Cover ascending numbers by at most MAX_RUNS runs with few other numbers."""
    gap = MIN_GAP
    while True:
        ends = [i for i in range(1, len(numbers)) if numbers[i] - numbers[i - 1] > gap]
        if len(ends) < MAX_RUNS:
            slices = zip([0, *ends], [*ends, len(numbers)], strict=True)
            return [(numbers[start], numbers[end - 1]) for start, end in slices]
        gap *= 2


class _FilterRestarted(Exception):
    """The size or format of the picture changed, and `select` counts frames from 0 again."""


def _decode(path: Path, runs: Sequence[Run]) -> Frames:
    """Yield (number, JPEG) of the frames in `runs`. Raises VideoError at the end of the file."""
    try:
        yield from _decode_selected(path, runs)
    except _FilterRestarted:
        yield from _decode_selected(path, WHOLE)  # without `select`


def _decode_selected(path: Path, runs: Sequence[Run]) -> Frames:
    stream = _start(path, runs)
    numbers = chain.from_iterable(
        count(first) if last is None else range(first, last + 1) for first, last in runs
    )
    is_begun = runs[0][0] == 1
    try:
        for number, data in zip(numbers, read_parts(stream.pipe), strict=False):
            stream.next_time()  # waits until ffmpeg has logged this frame
            if number == runs[0][0]:
                _refuse_picture(stream)
            _check_count(stream, runs)
            is_begun = True
            yield number, data
        ran = stream.finish()
        _check_count(stream, runs)
        if ran.returncode != 0:
            # The encoder fails without frames, which is no fault of a video that ends before them.
            is_short = not is_begun and stream.log.n_graphs > 0
            verdict = judge(ran, n_frames=1 if is_short else 0)
            is_fault = verdict.status in (FAILED, LEFT_OUT)
            raise VideoError(verdict.reason if is_fault else "the file ends before it")
        raise VideoError(ran.errors[0] if ran.errors else "the file ends before it")
    finally:
        stream.kill()
        stream.finish()


def _start(path: Path, runs: Sequence[Run]) -> Stream:
    rejection = why_no_video(path)
    if rejection is not None:
        raise VideoError(rejection.reason)
    select = "" if runs == WHOLE else f"select='{'+'.join(map(_term, runs))}',"
    # showinfo logs every frame, and every configuration of the filters.
    filters = f"{select}showinfo=checksum=0,"
    arguments = frame_arguments(path, Arguments(SIZE, quality=QUALITY), filters_before=filters)
    try:
        return Ffmpeg().stream([*arguments, *TO_PIPE])
    except OSError as error:
        raise VideoError(f"ffmpeg can't be started: {error.strerror}") from None


def _term(run: Run) -> str:
    first, last = run
    return f"gte(n,{first - 1})" if last is None else f"between(n,{first - 1},{last - 1})"


def _check_count(stream: Stream, runs: Sequence[Run]) -> None:
    if runs != WHOLE and stream.log.n_graphs > 1:
        raise _FilterRestarted


def _refuse_picture(stream: Stream) -> None:
    verdict = judge(stream.log.summary(), n_frames=2)
    if verdict.status == LEFT_OUT:
        raise VideoError(verdict.reason)
