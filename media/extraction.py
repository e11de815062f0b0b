"""One video -> its frames, whole or not at all, and its row of the manifest."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec.structs import astuple, replace
from PIL import Image

from media.ffmpeg import Ffmpeg, FfmpegRun
from media.ffmpeg_inputs import input_of
from media.frame_folders import Overtaken, replace_frames
from media.frame_names import count_frames
from media.manifest import (
    DONE,
    FAILED,
    LEFT_OUT,
    WITH_FRAMES,
    Arguments,
    Known,
    Owner,
    Row,
)
from media.verdicts import Verdict, judge, why_no_video

THERE, NOT_TRIED = "already there", "not tried"
ALIAS = "alias"  # a second path to a video; both are extracted
FRAME_PATTERN = "image_%05d.jpg"
EVERY_FRAME = ("-map", "0:V:0", "-fps_mode", "passthrough")  # V leaves cover pictures out


class Job(NamedTuple):
    """A video to extract: `name` is its path below VIDEO_DIR, `target` its folder of frames."""

    name: str
    source: Path
    target: Path


class Outcome(NamedTuple):
    """What a job gave; `row` is None where the manifest holds it already."""

    name: str
    verdict: Verdict
    row: Row | None = None


class Form(Protocol):
    """How a video's frames lie on disk."""

    @property
    def suffix(self) -> str:
        """What the name of a video's frames ends in."""
        ...

    def extract(
        self, ffmpeg: Ffmpeg, arguments: Sequence[str], work: Path, timeout: float
    ) -> tuple[FfmpegRun, Path]:
        """Run ffmpeg on `arguments`, which name the input and filters; frames and their place."""
        ...

    def count(self, frames: Path) -> int:
        """How many frames there are; 0 where there is nothing."""
        ...

    def size(self, frames: Path) -> tuple[int, int] | None:
        """Width and height of the first frame."""
        ...

    def move(self, frames: Path, target: Path) -> None:
        """Put new frames in their place; files there that are no frames stay. Raises OSError,
        FileExistsError where another extraction was faster."""
        ...

    def remove(self, frames: Path, n_frames: int) -> None:
        """Remove a video's frames and nothing else."""
        ...


class JpgFolders:
    """A folder per video with image_00001.jpg …"""

    suffix = ""

    def extract(
        self, ffmpeg: Ffmpeg, arguments: Sequence[str], work: Path, timeout: float
    ) -> tuple[FfmpegRun, Path]:
        frames = work / "frames"
        frames.mkdir(exist_ok=True)
        return ffmpeg.run([*arguments, FRAME_PATTERN], cwd=frames, timeout=timeout), frames

    def count(self, frames: Path) -> int:
        try:
            n_frames, missing = count_frames(os.listdir(frames))
        except OSError:
            return 0
        return n_frames if missing is None else 0

    def size(self, frames: Path) -> tuple[int, int] | None:
        try:
            with Image.open(frames / (FRAME_PATTERN % 1)) as image:
                return image.size
        except OSError:
            return None

    def move(self, frames: Path, target: Path) -> None:
        replace_frames(frames, target)

    def remove(self, frames: Path, n_frames: int) -> None:
        """Remove the first `n_frames` frames, the last one first: what is there stays countable."""
        for number in range(n_frames, 0, -1):
            (frames / (FRAME_PATTERN % number)).unlink(missing_ok=True)
        with suppress(OSError):  # files of the user's are in it
            frames.rmdir()


@dataclass(frozen=True)
class Extraction:
    """How every video of one run is extracted. `video_dir` is absolute."""

    form: Form
    ffmpeg: Ffmpeg
    video_dir: Path
    work_dir: Path
    arguments: Arguments
    timeout: float = 0  # seconds per video; 0: none
    retry_failed: bool = False

    def run(self, number: int, job: Job, known: Known | None, owner: Owner | None) -> Outcome:
        """Extract one video if its manifest row and its folder do not show it done.

        `owner` is the video whose frames lie where this one's go.
        """
        try:
            stat = job.source.stat()
        except OSError as error:
            return Outcome(job.name, Verdict(FAILED, error.strerror or str(error)))
        row = Row(
            job.name,
            stat.st_size,
            stat.st_mtime_ns,
            self.arguments,
            DONE,
            video_dir=str(self.video_dir),
        )
        earlier = self._earlier(job, known, row.key) or self._twin(job, known, stat)
        if earlier is not None:
            return Outcome(job.name, earlier)
        if known is None and (found := self._taken_over(job, row, owner)) is not None:
            return Outcome(job.name, Verdict(THERE), found)
        return self._extract(number, job, row)

    def _earlier(self, job: Job, known: Known | None, key: int) -> Verdict | None:
        """What an earlier run made of a video, where it still holds."""
        if self.retry_failed:
            if known is None:
                return Verdict(NOT_TRIED)
            return None if known.status == FAILED else Verdict(THERE)
        if known is None or known.key != key:
            return None
        if known.status == FAILED:
            return Verdict(FAILED, f"{known.reason} (earlier; --retry_failed tries again)")
        if known.status == LEFT_OUT:
            return Verdict(LEFT_OUT, known.reason)
        return Verdict(THERE) if self.form.count(job.target) == known.frames else None

    def _twin(self, job: Job, known: Known | None, stat: os.stat_result) -> Verdict | None:
        """The verdict on a video that another folder of videos has by the same name."""
        if known is None or known.status not in WITH_FRAMES or not known.video_dir:
            return None
        other = Path(known.video_dir, job.name)
        if known.video_dir == str(self.video_dir) or not other.is_file():
            return None
        there = other.stat()
        if (there.st_size, there.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return None
        reason = f"its frames would replace those of {other}; give each folder a JPG_DIR of its own"
        return Verdict(FAILED, reason)

    def _taken_over(self, job: Job, row: Row, owner: Owner | None) -> Row | None:
        """The row of a new video whose frames are there: from before the manifest, or those of
        the same file by another name."""
        n_frames = self.form.count(job.target)
        if not n_frames or owner is not None and (row.key, n_frames) != (owner.key, owner.frames):
            return None
        row = row.with_frames(n_frames, self.form.size(job.target))
        return row if owner is None else replace(row, ffmpeg=owner.ffmpeg)

    def _extract(self, number: int, job: Job, row: Row) -> Outcome:
        problem = why_no_video(job.source)
        if problem is not None:
            return Outcome(job.name, problem, row.judged(*problem))
        work = self.work_dir / str(number)
        work.mkdir(parents=True)
        try:
            ran, frames = self._run_ffmpeg(job.source, work)
            n_frames = self.form.count(frames)
            verdict = judge(ran, n_frames=n_frames, timeout=self.timeout, name=job.name)
            row = row.told_by(ran).judged(*verdict)
            if verdict.status in WITH_FRAMES:
                row = row.with_frames(n_frames, self.form.size(frames))
                verdict = self._move(frames, job.target, verdict)
                row = row.judged(*verdict) if verdict.status == FAILED else row
            return Outcome(job.name, verdict, row)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _run_ffmpeg(self, source: Path, work: Path) -> tuple[FfmpegRun, Path]:
        """How it ended, and the place of the frames. The filter fps drops all frames of a clip of
        less than half a period; then it is made to pass the last one."""
        command = frame_arguments(source, self.arguments)
        ran, frames = self.form.extract(self.ffmpeg, command, work, self.timeout)
        if self.arguments.fps is None or ran.timed_out or self.form.count(frames):
            return ran, frames
        command = frame_arguments(source, self.arguments, at_the_end=":eof_action=pass")
        return self.form.extract(self.ffmpeg, command, work, self.timeout)

    def _move(self, frames: Path, target: Path, verdict: Verdict) -> Verdict:
        """Put the frames in their place."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.form.move(frames, target)
        except Overtaken:
            return Verdict(THERE)
        except OSError as error:
            return Verdict(FAILED, f"{target}: {error.strerror}")
        return verdict


def frame_arguments(
    source: Path, arguments: Arguments, *, before: str = "", at_the_end: str = ""
) -> list[str]:
    """What makes ffmpeg give one image per decoded frame, with the filters `before` in front of
    those that `arguments` ask for, and the option `at_the_end` of the filter fps; rotation is
    applied. An output has to follow."""
    size, fps, quality, interpolate = astuple(arguments)
    filters = f"{before}{scaling(size)}"
    if fps is not None:
        resample = "minterpolate=fps" if interpolate and not at_the_end else "fps"
        filters = f"{resample}={fps}{at_the_end},{filters}"
    # Without times the encoder numbers the frames itself. It ends at a time that goes back, as
    # where damage or another stream follows, and loses all frames from there on.
    output = [*EVERY_FRAME, "-vf", f"{filters},setpts=NAN", "-threads", "1"]
    if quality is not None:
        output += ["-q:v", str(quality)]
    return [*input_of(source), *output]


def scaling(size: int) -> str:
    """The filter that brings the shorter side to `size` pixels."""
    return f"scale=w='if(gt(iw,ih),-1,{size})':h='if(gt(iw,ih),{size},-1)'"
