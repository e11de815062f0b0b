"""Videos -> a folder of JPG frames each: VIDEO_DIR/LABEL/NAME.avi -> JPG_DIR/LABEL/NAME/.

Every file is tried, whatever its extension. Frames are written beside and renamed when all are
there, so that an interrupted run can be started again and goes on where it stopped.
"""

import argparse
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from errors import UserError
from util_scripts.cli import run
from util_scripts.ffmpeg import Ffmpeg, FfmpegRun, input_of

DONE, THERE, PARTIAL, LEFT_OUT, FAILED = "done", "already there", "partial", "left out", "failed"
TITLES = {
    PARTIAL: "damaged: the frames that decode are kept",
    LEFT_OUT: "left out",
    FAILED: "failed",
}
WORK_PREFIX = ".extracting-"  # one such folder per running extraction, below JPG_DIR
SNIFFED = 4096  # bytes that tell text from video
TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")


class Outcome(NamedTuple):
    """What became of one file."""

    source: Path
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Extraction:
    """How every video of one run is extracted."""

    ffmpeg: Ffmpeg
    work_dir: Path
    size: int
    fps: float | None

    def extract(self, number: int, source: Path, target: Path) -> Outcome:
        """Write all frames of `source` into the folder `target`, or nothing."""
        if _has_entries(target):
            return Outcome(source, THERE)
        problem = _why_no_video(source)
        if problem is not None:
            return Outcome(source, *problem)
        work = self.work_dir / str(number)
        work.mkdir(parents=True)
        try:
            ran = self.ffmpeg.run(self._arguments(source), cwd=work)
            outcome = judge(source, ran, n_frames=sum(1 for _ in work.iterdir()))
            if outcome.status in (DONE, PARTIAL):
                outcome = _move(work, target, outcome)
            return outcome
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _arguments(self, source: Path) -> list[str]:
        """One image per decoded frame; V leaves cover pictures out; rotation is applied."""
        shorter = f"scale=w='if(gt(iw,ih),-1,{self.size})':h='if(gt(iw,ih),{self.size},-1)'"
        filters = shorter if self.fps is None else f"fps={self.fps},{shorter}"
        output = ["-map", "0:V:0", "-vf", filters, "-fps_mode", "passthrough", "-threads", "1"]
        return [*input_of(source), *output, "image_%05d.jpg"]


def judge(source: Path, ran: FfmpegRun, *, n_frames: int) -> Outcome:
    """What ffmpeg's end means. A video is partial if ffmpeg complained and frames came all the
    same; a full disk is a failure, since frames are missing that would decode."""
    complaint = ran.complaints[0] if ran.complaints else f"ffmpeg's status was {ran.returncode}"
    full = [line for line in ran.complaints if "No space left" in line]
    if full:
        return Outcome(source, FAILED, full[0])
    if ran.input_format is not None and _is_picture(ran.input_format, n_frames):
        return Outcome(source, LEFT_OUT, "a picture, not a video")
    if ran.input_format is not None and "tty" in ran.input_format.split(","):
        return Outcome(source, LEFT_OUT, "text, not a video")
    if ran.returncode < 0:
        return Outcome(source, FAILED, f"ffmpeg was ended by signal {-ran.returncode}")
    if n_frames == 0:
        return Outcome(source, FAILED, _why_no_frames(ran))
    if ran.returncode != 0 or ran.complaints:
        return Outcome(source, PARTIAL, f"{n_frames} frames; {complaint}")
    return Outcome(source, DONE)


def _is_picture(input_format: str, n_frames: int) -> bool:
    if input_format == "gif":
        return n_frames <= 1
    return input_format == "image2" or input_format.endswith("_pipe")


def _why_no_frames(ran: FfmpegRun) -> str:
    if any("matches no streams" in line for line in ran.complaints):
        return "no video stream"
    return ran.complaints[0] if ran.complaints else "no frame could be decoded"


def _why_no_video(source: Path) -> tuple[str, str] | None:
    """Status and reason of a file that ffmpeg need not see: it would draw text as pictures."""
    try:
        with source.open("rb") as file:
            start = file.read(SNIFFED)
    except OSError as error:
        return FAILED, error.strerror or str(error)
    if not start:
        return FAILED, "an empty file"
    return (LEFT_OUT, "text, not a video") if _is_text(start) else None


def _is_text(data: bytes) -> bool:
    if any(byte < 32 and byte not in TEXT_CONTROLS for byte in data):
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(data) - 3  # a letter cut in two by the end of what was read
    return True


def _move(work: Path, target: Path, outcome: Outcome) -> Outcome:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        work.rename(target)
    except OSError as error:
        if _has_entries(target):  # another extraction was faster
            return Outcome(outcome.source, THERE)
        return Outcome(outcome.source, FAILED, f"{target}: {error.strerror}")
    return outcome


def _has_entries(folder: Path) -> bool:
    try:
        with os.scandir(folder) as items:
            return next(items, None) is not None
    except OSError:
        return False


def find_files(folder: Path, excluded: Path) -> Iterator[Path]:
    """All regular files below `folder` in name order, without `excluded` and hidden ones."""
    seen: set[Path] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root)
        if here.resolve() in seen or here.resolve() == excluded.resolve():
            folders.clear()
            continue
        seen.add(here.resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and (here / name).is_file():
                yield here / name


def plan(video_dir: Path, jpg_dir: Path) -> tuple[list[tuple[Path, Path]], list[Outcome]]:
    """(source, target folder) of every file, and those whose frames would mix with another's."""
    jobs: list[tuple[Path, Path]] = []
    clashes: list[Outcome] = []
    taken: dict[Path, Path] = {}
    for source in find_files(video_dir, jpg_dir):
        target = jpg_dir / source.relative_to(video_dir).with_suffix("")
        if target in taken:
            reason = f"its frames would go where those of {taken[target].name} go"
            clashes.append(Outcome(source, FAILED, reason))
            continue
        taken[target] = source
        jobs.append((source, target))
    folders = {parent for target in taken for parent in target.parents}
    for source, target in jobs:
        if target in folders:
            reason = f"there is a folder of videos of the same name, {target.name}"
            clashes.append(Outcome(source, FAILED, reason))
    return [job for job in jobs if job[1] not in folders], clashes


def remove_stale_work(jpg_dir: Path) -> None:
    """Remove what extractions on this machine left that were killed."""
    for folder in jpg_dir.glob(f"{WORK_PREFIX}{socket.gethostname()}-*"):
        pid = folder.name.rsplit("-", 1)[1]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def extract_all(
    jobs: Sequence[tuple[Path, Path]], extraction: Extraction, n_jobs: int
) -> Iterator[Outcome]:
    """Outcomes as the videos are done; ends ffmpeg when the caller stops."""
    pool = ThreadPoolExecutor(n_jobs)
    try:
        futures = [
            pool.submit(extraction.extract, number, source, target)
            for number, (source, target) in enumerate(jobs)
        ]
        bar = tqdm(as_completed(futures), total=len(futures), unit="video", disable=None)
        for future in bar:
            yield future.result()
    finally:
        extraction.ffmpeg.stop()
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(extraction.work_dir, ignore_errors=True)


def report(outcomes: Sequence[Outcome], video_dir: Path) -> None:
    """The summary: how many of each, and the names of all that are not simply done."""
    for status, title in TITLES.items():
        named = sorted(o for o in outcomes if o.status == status)
        if named:
            print(f"{title}:")
        for outcome in named:
            print(f"  {_shown(outcome.source.relative_to(video_dir))}: {outcome.reason}")
    counts = Counter(outcome.status for outcome in outcomes)
    print(", ".join(f"{counts[s]} {s}" for s in (DONE, THERE, PARTIAL, LEFT_OUT, FAILED)))


def _shown(path: Path) -> str:
    return str(path) if str(path).isprintable() else ascii(str(path))


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    if not options.video_dir.is_dir():
        raise UserError(f"{options.video_dir}: no such folder of videos")
    jobs, outcomes = plan(options.video_dir, options.jpg_dir)
    if not jobs and not outcomes:
        raise UserError(f"{options.video_dir}: holds no files")
    work_dir = options.jpg_dir / f"{WORK_PREFIX}{socket.gethostname()}-{os.getpid()}"
    try:
        options.jpg_dir.mkdir(parents=True, exist_ok=True)
        remove_stale_work(options.jpg_dir)
        work_dir.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.jpg_dir}: can't be written: {error.strerror}") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing stays half done
    extraction = Extraction(Ffmpeg(), work_dir.absolute(), options.size, options.fps)
    n_jobs = options.n_jobs if options.n_jobs > 0 else os.cpu_count() or 1
    outcomes += extract_all(jobs, extraction, n_jobs)
    report(outcomes, options.video_dir)
    return 1 if any(outcome.status == FAILED for outcome in outcomes) else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="util_scripts.generate_video_jpgs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video_dir", type=Path, help="folder of folders of videos")
    parser.add_argument("jpg_dir", type=Path, help="where the frames go; made if missing")
    parser.add_argument("dataset", help="name of the dataset; folders are mirrored for all of them")
    parser.add_argument("--n_jobs", type=int, default=-1, help="videos at once; -1: one per core")
    parser.add_argument(
        "--fps", type=partial(_number, float), default=None, help="frames per second; -1: all"
    )
    parser.add_argument(
        "--size", type=partial(_number, int), default=240, help="shorter side in pixels (240)"
    )
    options = parser.parse_args(argv)
    if options.size is None:
        raise UserError("--size -1: the shorter side needs at least 1 pixel")
    return options


def _number(kind: type, text: str) -> int | float | None:
    """A number above 0, or None for -1."""
    value = kind(text)
    if value == -1:
        return None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


if __name__ == "__main__":
    sys.exit(run(main))
