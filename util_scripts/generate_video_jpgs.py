"""Videos -> a folder of JPG frames each: VIDEO_DIR/LABEL/NAME.avi -> JPG_DIR/LABEL/NAME/.

Every file is tried, whatever its extension. Frames are written beside and renamed when all are
there, so that an interrupted run can be started again and goes on where it stopped. What became of
every video is in JPG_DIR/manifest.jsonl; a video whose file or flags changed is extracted anew.
Frames whose video was moved, renamed or deleted are named, left out of indexes, and removed with
--prune. Exit status 1 where a file that is called a video gave no frames.
"""

import argparse
import os
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from pathlib import Path

from errors import UserError
from media.extraction import (
    ALIAS,
    NOT_TRIED,
    THERE,
    Extraction,
    Form,
    Job,
    JpgFolders,
    Outcome,
)
from media.ffmpeg import Ffmpeg
from media.frame_folders import restore_frames
from media.manifest import DONE, FAILED, LEFT_OUT, PARTIAL, Arguments, Manifest
from media.orphans import Orphan, find_orphans, note_gone, prune, still_there
from media.plan import plan
from media.shard import WHOLE, parse_shard
from utils.command_line import INPUT, OUTPUT_FOLDER, Parser, printable, run
from utils.progress_bar import Bar

TITLES = {
    ALIAS: "links to videos that are extracted from another path, too",
    PARTIAL: "damaged: the frames that decode are kept",
    LEFT_OUT: "left out",
    FAILED: "failed",
}
ORPHANED = "frames without a video, which indexes leave out (--prune removes them)"
SHOWN = {LEFT_OUT: "left out"}  # statuses that read otherwise in the summary
NAMED = 200  # videos of one status that are named before "and N more"; the manifest has all
WORK_PREFIX = ".extracting-"  # one such folder per running extraction, below JPG_DIR
REMOVALS = 100  # tries to remove what a killed extraction left
QUEUED = 4  # jobs per worker that wait, so that memory does not grow with the number of videos


def remove_stale_work(jpg_dir: Path) -> None:
    """Remove what extractions on this machine left that were killed."""
    for folder in jpg_dir.glob(f"{WORK_PREFIX}{socket.gethostname()}-*"):
        pid = folder.name.rsplit("-", 1)[1]
        if pid.isdigit() and not _is_alive(int(pid)):
            for work in folder.iterdir():
                restore_frames(work)
            _remove_written(folder)


def _remove_written(folder: Path) -> None:
    """Remove a folder into which an ffmpeg that outlived its parent may still write: one more
    picture between the listing and the removal keeps the folder. Once it is gone, that ffmpeg
    finds no place to write to and ends."""
    for _ in range(REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # not known: os.kill would end it there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def extract_all(
    jobs: Iterable[Job | Outcome], extraction: Extraction, manifest: Manifest, n_jobs: int
) -> Iterator[Outcome]:
    """Outcomes as the videos are done, their rows written; ends ffmpeg when the caller stops."""
    pool = ThreadPoolExecutor(n_jobs)
    waiting: set[Future[Outcome]] = set()
    numbered = enumerate(jobs)
    try:
        while True:
            for number, job in islice(numbered, max(0, QUEUED * n_jobs - len(waiting))):
                if isinstance(job, Outcome):
                    yield job
                else:
                    known = manifest.known(job.name)
                    owner = manifest.owner(job.name) if known is None else None
                    waiting.add(pool.submit(extraction.run, number, job, known, owner))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                if outcome.row is not None:
                    manifest.append(outcome.row)
                elif outcome.verdict.status == THERE:
                    manifest.confirm(outcome.name, str(extraction.video_dir))
                yield outcome
    finally:
        extraction.ffmpeg.stop()
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(extraction.work_dir, ignore_errors=True)


class Report:
    """Counts outcomes, and keeps the names of those that are not simply done."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._named: dict[str, list[tuple[str, str]]] = {status: [] for status in TITLES}

    def add(self, outcome: Outcome) -> None:
        status, reason = outcome.verdict
        self.counts[status] += 1
        if status in self._named and len(self._named[status]) < NAMED:
            self._named[status].append((outcome.name, reason))

    def print(self, orphans: Mapping[str, Orphan]) -> None:
        for status, title in TITLES.items():
            self._print_named(title, self._named[status], self.counts[status])
        named = [(place, f"{orphan.source}: {orphan.reason}") for place, orphan in orphans.items()]
        self._print_named(ORPHANED, named[:NAMED], len(named))
        told = (DONE, THERE, PARTIAL, LEFT_OUT, FAILED)
        rest = (NOT_TRIED,) if self.counts[NOT_TRIED] else ()
        texts = [f"{self.counts[s]} {SHOWN.get(s, s)}" for s in (*told, *rest)]
        print(", ".join(texts + ([f"{len(orphans)} orphaned"] if orphans else [])))

    def _print_named(self, title: str, named: Sequence[tuple[str, str]], count: int) -> None:
        if named:
            print(f"{title}:")
        for name, reason in sorted(named):
            print(f"  {printable(name)}: {printable(reason)}")
        if count > len(named):
            print(f"  and {count - len(named)} more")


def main(argv: Sequence[str] | None = None) -> int:
    return extract_videos(make_parser("generate_video_jpgs", __doc__), JpgFolders(), argv)


def extract_videos(parser: argparse.ArgumentParser, form: Form, argv: Sequence[str] | None) -> int:
    """What this command does and generate_video_hdf5, in the form given."""
    options = _check(parser.parse_args(argv))
    _check_folders(options.video_dir, options.jpg_dir)
    work_dir = options.jpg_dir / f"{WORK_PREFIX}{socket.gethostname()}-{os.getpid()}"
    try:
        options.jpg_dir.mkdir(parents=True, exist_ok=True)
        remove_stale_work(options.jpg_dir)
        work_dir.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.jpg_dir}: can't be written: {error.strerror}") from None
    extraction = Extraction(
        form,
        Ffmpeg(),
        options.video_dir.resolve(),
        work_dir.absolute(),
        Arguments(options.size, options.fps, options.quality, options.interpolate),
        options.timeout,
        options.retry_failed,
    )
    report = _extract(options, extraction)
    orphans = still_there(find_orphans(options.jpg_dir), options.jpg_dir, form)
    if options.prune:
        orphans = _prune(orphans, options.jpg_dir, form)
    report.print(orphans)
    return 1 if report.counts[FAILED] else 0


def _extract(options: argparse.Namespace, extraction: Extraction) -> Report:
    """Extract what is to be done, and bring the manifest up to date."""
    report = Report()
    n_jobs = options.n_jobs if options.n_jobs > 0 else os.cpu_count() or 1
    with Manifest(options.jpg_dir, options.shard) as manifest:
        suffix = extraction.form.suffix
        jobs = partial(plan, options.video_dir, options.jpg_dir, options.shard, suffix=suffix)
        with Bar("extraction", sum(1 for _ in jobs()), "video") as bar:
            for outcome in extract_all(jobs(), extraction, manifest, n_jobs):
                report.add(outcome)
                bar.update(1)
        manifest.write_moved(str(extraction.video_dir))
        note_gone(manifest, keep=options.keep_gone)
    return report


def _prune(orphans: Mapping[str, Orphan], jpg_dir: Path, form: Form) -> dict[str, Orphan]:
    """Remove orphans; those that stay."""
    ours = {place: orphan for place, orphan in orphans.items() if orphan.is_ours}
    prune(ours, jpg_dir, form)
    print(f"--prune: the frames of {len(ours)} videos removed")
    others = {place: orphan for place, orphan in orphans.items() if place not in ours}
    if others:
        print("frames that were there before the manifest are not removed")
    return others


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"util_scripts.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    above_0 = partial(_number, float)
    parser.add_argument("video_dir", type=INPUT, help="folder of folders of videos")
    parser.add_argument("jpg_dir", type=OUTPUT_FOLDER, help="where the frames go; made if missing")
    parser.add_argument("dataset", help="name of the dataset; folders are mirrored for all of them")
    parser.add_argument("--n_jobs", type=int, default=-1, help="videos at once; -1: one per core")
    parser.add_argument("--fps", type=above_0, help="frames per second; -1: all")
    parser.add_argument(
        "--interpolate", action="store_true", help="with --fps: make frames between, not repeats"
    )
    parser.add_argument(
        "--size", type=partial(_number, int), default=240, help="shorter side in pixels (240)"
    )
    parser.add_argument(
        "--quality", type=int, choices=range(2, 32), metavar="2-31", help="of the JPGs; 2 is best"
    )
    parser.add_argument("--timeout", type=above_0, default=0, help="seconds per video; -1: none")
    parser.add_argument(
        "--retry_failed", action="store_true", help="extract what failed before, and nothing else"
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove the frames of videos that are no longer there"
    )
    parser.add_argument(
        "--keep_gone",
        action="store_true",
        help="videos that are no longer there were deleted to make room: indexes keep their frames",
    )
    parser.add_argument(
        "--shard",
        type=parse_shard,
        default=WHOLE,
        metavar="I/N",
        help="take the I-th of N parts of the videos, from 0; auto: as SLURM or torchrun tell",
    )
    return parser


def _check_folders(video_dir: Path, jpg_dir: Path) -> None:
    """Raises UserError where there are no videos, and where frames would mix with them."""
    if not video_dir.is_dir():
        raise UserError(f"{video_dir}: no such folder of videos")
    videos, frames = video_dir.resolve(), jpg_dir.resolve()
    if videos == frames or jpg_dir.exists() and video_dir.samefile(jpg_dir):
        raise UserError(
            f"{jpg_dir}: JPG_DIR is VIDEO_DIR; frames need a folder of their own, such as "
            f"{videos.parent / f'{videos.name}_jpg'}"
        )
    if videos.is_relative_to(frames):
        raise UserError(
            f"{jpg_dir}: JPG_DIR holds VIDEO_DIR, {video_dir}: videos would be taken for frames; "
            f"give the frames a folder beside it, such as {jpg_dir / 'jpg'}"
        )
    if next(plan(video_dir, jpg_dir), None) is None:
        raise UserError(f"{video_dir}: holds no files")
    if frames.is_relative_to(videos):
        print(f"{jpg_dir}: JPG_DIR lies in VIDEO_DIR; videos in it are not looked for")


def _check(options: argparse.Namespace) -> argparse.Namespace:
    if options.size is None:
        raise UserError("--size -1: the shorter side needs at least 1 pixel")
    if options.prune and options.shard != WHOLE:
        raise UserError("--prune looks at all videos: run it without --shard, after the shards")
    if options.prune and options.keep_gone:
        raise UserError("--prune removes what --keep_gone keeps: leave one out")
    if options.interpolate and options.fps is None:
        raise UserError("--interpolate makes frames for --fps, which is missing")
    options.timeout = options.timeout or 0
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
