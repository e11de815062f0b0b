"""Extract the frames of one video completely or not at all, and make its row of the manifest."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import astuple, replace

from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from media.ffmpeg_log import FfmpegRun
from media.frame_folders import LostRace
from media.frame_formats import FrameFormat
from media.manifest import DONE, FAILED, LEFT_OUT, WITH_FRAMES, Arguments, Owner, Previous, Row
from media.verdicts import Verdict, judge_whole, why_no_video
from media.work_folders import WorkFolder

THERE, NOT_TRIED = "already there", "not tried"
ALIAS = "alias"  # a second path to a video; both are extracted
ONE_FRAME = ("-map", "0:V:0", "-frames:v", "1", "-f", "null", "-")
TOLERANCE, FEW = 0.1, 2  # a part of the frames, and frames, that a video's duration may be wrong by
EVERY_FRAME = ("-map", "0:V:0", "-fps_mode", "passthrough")  # V excludes cover pictures


class Job(NamedTuple):
    """A video to extract: `name` is its path below VIDEO_DIR, `target` where its frames go."""

    name: str
    source: Path
    target: Path


class Outcome(NamedTuple):
    """The result of a job; `row` is None if the manifest already has it."""

    name: str
    verdict: Verdict
    row: Row | None = None


@dataclass(frozen=True)
class Extraction:
    """The settings of a run, the same for every video. `video_dir` is absolute."""

    frame_format: FrameFormat
    ffmpeg: Ffmpeg
    video_dir: Path
    work: WorkFolder
    arguments: Arguments
    timeout: float = 0  # seconds per video; 0: no limit
    retry_failed: bool = False

    def run(
        self,
        number: int,
        job: Job,
        previous: Previous | None,
        owner_of: Callable[[str], Owner | None],
    ) -> Outcome:
        """Extract one video, unless its manifest row and its frames show that it is done.

        `owner_of` returns the video whose frames lie where those of a name go, if any.
        """
        try:
            stat = job.source.stat()
        except OSError as error:
            return Outcome(job.name, Verdict(FAILED, error.strerror or str(error)))
        size, mtime, place = stat.st_size, stat.st_mtime_ns, str(self.video_dir)
        row = Row(job.name, size, mtime, self.arguments, DONE, video_dir=place)
        if (verdict := self._previous_verdict(job, previous, row.key)) is not None:
            return Outcome(job.name, verdict)
        owner = owner_of(job.name)
        if owner is not None and (verdict := self._name_clash(owner, stat)) is not None:
            return Outcome(job.name, verdict)
        if self.frame_format.holds_other_data(job.target):
            return _does_not_fit(job)
        if previous is None and (adopted := self._adopt_frames(job, row, owner)) is not None:
            return adopted
        return self._extract(number, job, row)

    def _previous_verdict(self, job: Job, previous: Previous | None, key: int) -> Verdict | None:
        """Return the verdict of an earlier run if it still holds."""
        if self.retry_failed:
            if previous is None:
                return Verdict(NOT_TRIED)
            return None if previous.status == FAILED else Verdict(THERE)
        if previous is None or previous.key != key:
            return None
        if previous.status == FAILED:
            return Verdict(FAILED, f"{previous.reason} (earlier; --retry_failed tries again)")
        if previous.status == LEFT_OUT:
            return Verdict(LEFT_OUT, previous.reason)
        n_frames = self.frame_format.count(job.target)
        is_whole = n_frames == previous.frames and self.frame_format.is_written(
            job.target, n_frames
        )
        return Verdict(THERE) if is_whole else None

    def _name_clash(self, owner: Owner, stat: os.stat_result) -> Verdict | None:
        """Refuse a video if a different one from another VIDEO_DIR, of the same name or with
        another suffix, has its frames here."""
        other = Path(owner.video_dir, owner.source)
        if owner.video_dir in ("", str(self.video_dir)) or not other.is_file():
            return None
        other_stat = other.stat()
        if (other_stat.st_size, other_stat.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return None
        reason = f"would replace the frames of {other}; give each VIDEO_DIR its own JPG_DIR"
        return Verdict(FAILED, reason)

    def _adopt_frames(self, job: Job, row: Row, owner: Owner | None) -> Outcome | None:
        """Make the row of a new video whose frames exist: those of the same file under another
        name, or frames without a row. These have to fit the video; of an interrupted run of
        another program there may be only some. None if the video is to be extracted."""
        n_frames = self.frame_format.count(job.target)
        if not n_frames or not self.frame_format.is_written(job.target, n_frames):
            return None
        if owner is not None and (row.key, n_frames) != (owner.key, owner.frames):
            return None
        row = row.with_frames(n_frames, self.frame_format.size(job.target))
        if owner is not None:
            return Outcome(job.name, Verdict(THERE), replace(row, ffmpeg=owner.ffmpeg))
        if self._fit(job.source, row):
            return Outcome(job.name, Verdict(THERE), row)
        if self.frame_format.keeps_other_data:
            return None
        return _does_not_fit(job)

    def _fit(self, source: Path, row: Row) -> bool:
        """Whether size and number of frames can be those of a video. True if it does not say how
        long it is."""
        if (
            row.width is None
            or row.height is None
            or min(row.width, row.height) != row.arguments.size
        ):
            return False
        ran = self.ffmpeg.run([*input_of(source), *ONE_FRAME], timeout=self.timeout)
        if not ran.seconds or not ran.rate:
            return True
        n_expected = ran.seconds * (row.arguments.fps or ran.rate)
        # Other programs repeat frames of videos with a variable rate.
        most = (1 + TOLERANCE) * n_expected if row.arguments.fps else 2 * n_expected
        return (1 - TOLERANCE) * n_expected - FEW <= row.frames <= most + FEW

    def _extract(self, number: int, job: Job, row: Row) -> Outcome:
        rejection = why_no_video(job.source)
        if rejection is not None:
            return Outcome(job.name, rejection, row.with_status(*rejection))
        work = self.work.path / str(number)
        work.mkdir(parents=True)
        try:
            ran, frames = self._run_ffmpeg(job.source, work)
            n_frames = self.frame_format.count(frames)
            verdict = judge_whole(ran, n_frames=n_frames, timeout=self.timeout, name=job.name)
            row = row.with_run(ran).with_status(*verdict)
            if verdict.status in WITH_FRAMES:
                row = row.with_frames(n_frames, self.frame_format.size(frames))
                verdict = self._move(frames, job.target, verdict)
                row = row.with_status(*verdict) if verdict.status == FAILED else row
            return Outcome(job.name, verdict, row)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _run_ffmpeg(self, source: Path, work: Path) -> tuple[FfmpegRun, Path]:
        """Run ffmpeg; run it again if the filter fps drops every frame, as it does for a clip
        shorter than half a period: then it has to pass the last frame on."""
        command = frame_arguments(source, self.arguments)
        ran, frames = self.frame_format.extract(self.ffmpeg, command, work, self.timeout)
        if self.arguments.fps is None or ran.timed_out or self.frame_format.count(frames):
            return ran, frames
        command = frame_arguments(source, self.arguments, fps_options=":eof_action=pass")
        return self.frame_format.extract(self.ffmpeg, command, work, self.timeout)

    def _move(self, frames: Path, target: Path, verdict: Verdict) -> Verdict:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.frame_format.move(frames, target)
        except LostRace:
            return Verdict(THERE)
        except OSError as error:
            return Verdict(FAILED, f"{target}: {error.strerror}")
        return verdict


def _does_not_fit(job: Job) -> Outcome:
    reason = f"{job.target} exists, but does not fit the video; move it away to extract it"
    return Outcome(job.name, Verdict(FAILED, reason))


def frame_arguments(
    source: Path, arguments: Arguments, *, filters_before: str = "", fps_options: str = ""
) -> list[str]:
    """Return ffmpeg's arguments for one image per decoded frame, rotated as the video says.

    `filters_before` run before the filters of `arguments`. The caller appends the output.
    """
    size, fps, quality, interpolate = astuple(arguments)
    filters = f"{filters_before}{scaling(size)}"
    if fps is not None:
        resample = "minterpolate=fps" if interpolate and not fps_options else "fps"
        filters = f"{resample}={fps}{fps_options},{filters}"
    # setpts=NAN makes the encoder number the frames itself. With timestamps it stops at the first
    # one that goes back, as after damage or at a second stream, and loses every frame after it.
    output = [*EVERY_FRAME, "-vf", f"{filters},setpts=NAN", "-threads", "1"]
    if quality is not None:
        output += ["-q:v", str(quality)]
    return [*input_of(source), *output]


def scaling(size: int) -> str:
    """Return the filter that scales the shorter side to `size` pixels."""
    return f"scale=w='if(gt(iw,ih),-1,{size})':h='if(gt(iw,ih),{size},-1)'"
