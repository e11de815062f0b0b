"""One video -> its frames, whole or not at all, and its row of the manifest."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from PIL import Image

from errors import UserError
from util_scripts.ffmpeg import Ffmpeg, FfmpegRun, input_of
from util_scripts.manifest import DONE, FAILED, LEFT_OUT, PARTIAL, Arguments, Known, Row, key_of

THERE, NOT_TRIED = "already there", "not tried"
FRAME_PATTERN = "image_%05d.jpg"
EVERY_FRAME = ("-map", "0:V:0", "-fps_mode", "passthrough")  # V leaves cover pictures out
SNIFFED = 4096  # bytes that tell text from video
TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")


class Verdict(NamedTuple):
    """What became of a video, and why where that is not plain."""

    status: str
    reason: str = ""


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


class JpgFolders:
    """A folder per video with image_00001.jpg …"""

    suffix = ""

    def extract(
        self, ffmpeg: Ffmpeg, arguments: Sequence[str], work: Path, timeout: float
    ) -> tuple[FfmpegRun, Path]:
        frames = work / "frames"
        frames.mkdir()
        return ffmpeg.run([*arguments, FRAME_PATTERN], cwd=frames, timeout=timeout), frames

    def count(self, frames: Path) -> int:
        try:
            return len(os.listdir(frames))
        except OSError:
            return 0

    def size(self, frames: Path) -> tuple[int, int] | None:
        try:
            with Image.open(frames / (FRAME_PATTERN % 1)) as image:
                return image.size
        except OSError:
            return None


@dataclass(frozen=True)
class Extraction:
    """How every video of one run is extracted."""

    form: Form
    ffmpeg: Ffmpeg
    work_dir: Path
    arguments: Arguments
    timeout: float = 0  # seconds per video; 0: none
    retry_failed: bool = False

    def run(self, number: int, job: Job, known: Known | None) -> Outcome:
        """Extract one video if its manifest row and its folder do not show it done."""
        try:
            stat = job.source.stat()
        except OSError as error:
            return Outcome(job.name, Verdict(FAILED, error.strerror or str(error)))
        key = key_of(stat.st_size, stat.st_mtime_ns, self.arguments)
        earlier = self._settled(job, known, key)
        if earlier is not None:
            return Outcome(job.name, earlier)
        row = Row(job.name, stat.st_size, stat.st_mtime_ns, self.arguments, DONE)
        if known is None and (n_frames := self.form.count(job.target)):
            row = row.with_frames(n_frames, self.form.size(job.target))
            return Outcome(job.name, Verdict(THERE), row)
        return self._extract(number, job, row)

    def _settled(self, job: Job, known: Known | None, key: int) -> Verdict | None:
        """What an earlier run made of a video, where it still holds."""
        if self.retry_failed:
            if known is None:
                return Verdict(NOT_TRIED)
            return None if known.status == FAILED else Verdict(THERE)
        if known is None or known.key != key:
            return None
        if known.status == FAILED:
            return Verdict(FAILED, f"{known.reason} (earlier; --retry_failed tries again)")
        if known.status == LEFT_OUT or self.form.count(job.target) == known.frames:
            return Verdict(THERE)
        return None

    def _extract(self, number: int, job: Job, row: Row) -> Outcome:
        problem = why_no_video(job.source)
        if problem is not None:
            return Outcome(job.name, problem, row.judged(*problem))
        work = self.work_dir / str(number)
        work.mkdir(parents=True)
        try:
            command = frame_arguments(job.source, self.arguments)
            ran, frames = self.form.extract(self.ffmpeg, command, work, self.timeout)
            n_frames = self.form.count(frames)
            verdict = judge(ran, n_frames=n_frames, timeout=self.timeout)
            row = row.told_by(ran).judged(*verdict)
            if verdict.status in (DONE, PARTIAL):
                row = row.with_frames(n_frames, self.form.size(frames))
                verdict = self._move(frames, job.target, verdict)
                row = row.judged(*verdict) if verdict.status == FAILED else row
            return Outcome(job.name, verdict, row)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _move(self, frames: Path, target: Path, verdict: Verdict) -> Verdict:
        """Put the frames in their place; of two extractions the later one's stay."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                target.rename(frames.with_name("old"))
            frames.replace(target)
        except OSError as error:
            if self.form.count(target):  # another extraction was faster
                return Verdict(THERE)
            return Verdict(FAILED, f"{target}: {error.strerror}")
        return verdict


def walk_files(
    folder: Path, excluded: Path | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, its files, its folders) from `folder` on, in name order, without `excluded` and
    hidden ones."""
    seen: set[Path] = set() if excluded is None else {excluded.resolve()}
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root)
        if here.resolve() in seen:
            folders.clear()
            continue
        seen.add(here.resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (name for name in sorted(names) if not name.startswith("."))
        yield here, [name for name in files if (here / name).is_file()], folders


def frame_arguments(source: Path, arguments: Arguments, *, before: str = "") -> list[str]:
    """What makes ffmpeg give one image per decoded frame, with the filters `before` in front of
    those that `arguments` ask for; rotation is applied. An output has to follow."""
    size, fps, quality, interpolate = arguments
    filters = f"{before}{scaling(size)}"
    if fps is not None:
        filters = f"{'minterpolate=fps' if interpolate else 'fps'}={fps},{filters}"
    # Without times the encoder numbers the frames itself. It ends at a time that goes back, as
    # where damage or another stream follows, and loses all frames from there on.
    output = [*EVERY_FRAME, "-vf", f"{filters},setpts=NAN", "-threads", "1"]
    if quality is not None:
        output += ["-q:v", str(quality)]
    return [*input_of(source), *output]


def scaling(size: int) -> str:
    """The filter that brings the shorter side to `size` pixels."""
    return f"scale=w='if(gt(iw,ih),-1,{size})':h='if(gt(iw,ih),{size},-1)'"


def judge(ran: FfmpegRun, *, n_frames: int, timeout: float = 0) -> Verdict:
    """What ffmpeg's end means. A video is partial if ffmpeg complained and frames came all the
    same. Raises UserError on a full disk: frames are missing that would decode."""
    full = [line for line in ran.complaints if "No space left" in line]
    if full:
        raise UserError(f"the disk is full ({full[0]}); run again to go on when there is room")
    if ran.timed_out:
        return Verdict(FAILED, f"took longer than --timeout {timeout:g}")
    if ran.input_format is not None and _is_picture(ran.input_format, n_frames):
        return Verdict(LEFT_OUT, "a picture, not a video")
    if ran.input_format is not None and "tty" in ran.input_format.split(","):
        return Verdict(LEFT_OUT, "text, not a video")
    if ran.returncode < 0:
        return Verdict(FAILED, f"ffmpeg was ended by signal {-ran.returncode}")
    if n_frames == 0:
        return Verdict(FAILED, _why_no_frames(ran))
    if ran.returncode != 0 or ran.complaints:
        complaint = ran.complaints[0] if ran.complaints else f"ffmpeg's status {ran.returncode}"
        return Verdict(PARTIAL, f"{n_frames} frames; {complaint}")
    return Verdict(DONE)


def _is_picture(input_format: str, n_frames: int) -> bool:
    if input_format == "gif":
        return n_frames <= 1
    return input_format == "image2" or input_format.endswith("_pipe")


def _why_no_frames(ran: FfmpegRun) -> str:
    if any("matches no streams" in line for line in ran.complaints):
        return "no video stream"
    return ran.complaints[0] if ran.complaints else "no frame could be decoded"


def why_no_video(source: Path) -> Verdict | None:
    """The verdict on a file that ffmpeg need not see: it would draw text as pictures."""
    try:
        with source.open("rb") as file:
            start = file.read(SNIFFED)
    except OSError as error:
        return Verdict(FAILED, error.strerror or str(error))
    if not start:
        return Verdict(FAILED, "an empty file")
    return Verdict(LEFT_OUT, "text, not a video") if _is_text(start) else None


def _is_text(data: bytes) -> bool:
    if any(byte < 32 and byte not in TEXT_CONTROLS for byte in data):
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(data) - 3  # a letter cut in two by the end of what was read
    return True
