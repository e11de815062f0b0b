"""Frames of video files as JPEG: the bytes that generate_video_jpgs --quality 2 writes, because the
same ffmpeg decodes, scales and encodes them. They count from 1, as in a folder of JPGs, so that one
index serves both. Free of torch."""

import os
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain, count
from pathlib import Path
from typing import IO

from errors import UserError
from media.extraction import frame_arguments, judge, why_no_video
from media.ffmpeg import Ffmpeg, Stream
from media.manifest import FAILED, LEFT_OUT, Arguments

SIZE = 240  # the shorter side in pixels, generate_video_jpgs' default
QUALITY = 2  # the best
TO_PIPE = ("-c:v", "mjpeg", "-f", "mpjpeg", "-")
LENGTH = b"Content-length:"  # of a part of an mpjpeg stream
KEPT = 256  # frames that an open video holds as JPEG, for windows that overlap
MIN_GAP = 4  # frames that cost more to leave out than to read
MAX_RUNS = 64  # terms of ffmpeg's expression, which it evaluates for every frame

Run = tuple[int, int | None]  # first and last number; None: to the end
Frames = Generator[tuple[int, bytes], None, None]  # number, JPEG
WHOLE: Sequence[Run] = [(1, None)]


class VideoError(Exception):
    """Why a video file does not give a frame; the message leaves out the file's name."""


def count_video(path: Path, ffmpeg: Ffmpeg | None = None) -> int:
    """Count the frames that extraction would write, by decoding all of them.

    Raises UserError where it would write none.
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
    """Frames of a video file by number. Raises VideoError.

    Decoding starts at the beginning of the file: where a seek leads depends on the container.
    """
    with closing(_decode(path, _runs(sorted(set(numbers))))) as frames:
        return _pick(frames, numbers)


class OpenVideo:
    """A video file that is read in several steps, mostly forwards: ffmpeg waits in between."""

    def __init__(self, path: Path, first: int) -> None:
        self._path, self._pid = path, os.getpid()
        self._position = first - 1  # number of the last frame that ffmpeg gave
        self._held: dict[int, bytes] = {}
        self._decoded = _decode(path, [(first, None)])
        self._frames = self._hold()

    def can_read(self, path: Path, numbers: Collection[int]) -> bool:
        """Whether all of these frames are held or still to come, in the process that asks."""
        is_ours = path == self._path and self._pid == os.getpid()
        return is_ours and all(n > self._position or n in self._held for n in numbers)

    def read(self, numbers: Collection[int]) -> dict[int, bytes]:
        """Frames by number, of which can_read holds. Raises VideoError."""
        held = {number: self._held[number] for number in numbers if number in self._held}
        return held | _pick(self._frames, set(numbers) - held.keys())

    def close(self) -> None:
        """End ffmpeg, if this is the process that started it."""
        if self._pid == os.getpid():
            self._decoded.close()

    def _hold(self) -> Iterator[tuple[int, bytes]]:
        for number, data in self._decoded:
            self._position = number
            self._held[number] = data
            if len(self._held) > KEPT:
                del self._held[next(iter(self._held))]
            yield number, data


def read_parts(stream: IO[bytes]) -> Iterator[bytes]:
    """The JPEGs of ffmpeg's mpjpeg stream; a part that is cut short is left out."""
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
        if number in missing:
            missing.remove(number)
            found[number] = data
    return found


def _runs(numbers: Sequence[int]) -> list[Run]:
    """Rising numbers -> runs that hold them all, and few others."""
    gap = MIN_GAP
    while True:
        ends = [i for i in range(1, len(numbers)) if numbers[i] - numbers[i - 1] > gap]
        if len(ends) < MAX_RUNS:
            slices = zip([0, *ends], [*ends, len(numbers)], strict=True)
            return [(numbers[start], numbers[end - 1]) for start, end in slices]
        gap *= 2


class _CountedAnew(Exception):
    """The picture's size or format changes, and `select` counts its frames from 0 again."""


def _decode(path: Path, runs: Sequence[Run]) -> Frames:
    """Yield (number, frame) of `runs`. Raises VideoError at the end of the file."""
    try:
        yield from _decode_selected(path, runs)
    except _CountedAnew:
        yield from _decode_selected(path, WHOLE)  # which needs no `select`


def _decode_selected(path: Path, runs: Sequence[Run]) -> Frames:
    stream = _start(path, runs)
    numbers = chain.from_iterable(
        count(first) if last is None else range(first, last + 1) for first, last in runs
    )
    try:
        for number, data in zip(numbers, read_parts(stream.pipe), strict=False):
            stream.next_time()  # waits for what ffmpeg logs before this frame
            if number == runs[0][0]:
                _refuse_picture(stream)
            _check_count(stream, runs)
            yield number, data
        ran = stream.finish()
        _check_count(stream, runs)
        is_refused = ran.returncode != 0
        ends = ran.complaints[0] if ran.complaints else "the file ends before it"
        raise VideoError(judge(ran, n_frames=0).reason if is_refused else ends)
    finally:
        stream.kill()
        stream.finish()


def _start(path: Path, runs: Sequence[Run]) -> Stream:
    problem = why_no_video(path)
    if problem is not None:
        raise VideoError(problem.reason)
    select = "" if runs == WHOLE else f"select='{'+'.join(map(_term, runs))}',"
    # showinfo logs every frame, and when the filters are configured.
    filters = f"{select}showinfo=checksum=0,"
    arguments = frame_arguments(path, Arguments(SIZE, quality=QUALITY), before=filters)
    try:
        return Ffmpeg().stream([*arguments, *TO_PIPE])
    except OSError as error:
        raise VideoError(f"ffmpeg can't be started: {error.strerror}") from None


def _term(run: Run) -> str:
    first, last = run
    return f"gte(n,{first - 1})" if last is None else f"between(n,{first - 1},{last - 1})"


def _check_count(stream: Stream, runs: Sequence[Run]) -> None:
    if runs != WHOLE and stream.log.n_graphs > 1:
        raise _CountedAnew


def _refuse_picture(stream: Stream) -> None:
    verdict = judge(stream.log.told(), n_frames=2)
    if verdict.status == LEFT_OUT:
        raise VideoError(verdict.reason)
