"""What generate_video_jpgs and generate_video_hdf5 have in common: flags, checks, the run."""

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import asdict

from errors import UserError
from media.extract_all import Summary, extract_all
from media.extraction import Extraction
from media.ffmpeg import Ffmpeg
from media.frame_formats import FrameFormat
from media.jobs import find_jobs
from media.listed import read_listed
from media.manifest import FAILED, Arguments, Manifest
from media.orphans import Orphan, existing, find_orphans, prune, record_gone
from media.shard import WHOLE, parse_shard
from media.work_folders import WorkFolder, remove_stale_work
from utils.command_line import INPUT, OUTPUT_FOLDER, Parser
from utils.progress_bar import Bar
from utils.reading import shown_name

MAX_JOBS = 4096  # threads that any system can start


def extract_videos(parser: Parser, frame_format: FrameFormat, argv: Sequence[str] | None) -> int:
    """Run the command: extract, print a summary, return the exit status."""
    options = _parse(parser, argv)
    arguments = Arguments(options.size, options.fps, options.quality, options.interpolate)
    work = _make_work_folder(options.jpg_dir, arguments)
    extraction = Extraction(
        frame_format,
        Ffmpeg(),
        options.video_dir.resolve(),
        work,
        arguments,
        options.timeout or 0,
        options.retry_failed,
    )
    summary = _extract(options, extraction)
    orphans = existing(find_orphans(options.jpg_dir), options.jpg_dir, frame_format)
    if options.prune:
        orphans = _prune(orphans, options.jpg_dir, frame_format)
    for line in summary.lines(orphans):
        print(line)
    return 1 if summary.counts[FAILED] or summary.unmatched else 0


def _make_work_folder(jpg_dir: Path, arguments: Arguments) -> WorkFolder:
    """Raises UserError if JPG_DIR can't be written, or if another run writes to it with other
    arguments: the manifest might then not say whose frames remain."""
    flags = (f"--{name} {value}" for name, value in asdict(arguments).items() if value)
    settings = " ".join(flags)
    try:
        jpg_dir.mkdir(parents=True, exist_ok=True)
        remove_stale_work(jpg_dir)
        work = WorkFolder(jpg_dir, settings)
    except OSError as error:
        raise UserError(f"{jpg_dir}: can't be written: {error.strerror}") from None
    for other in work.others():
        if other != settings:
            work.remove()
            raise UserError(
                f"{jpg_dir}: another extraction writes to it with {shown_name(other)}, this one "
                f"has {settings}; wait for its end, or give another folder"
            )
    return work


def _extract(options: argparse.Namespace, extraction: Extraction) -> Summary:
    """Extract what is not done yet, and bring the manifest up to date."""
    listed = None
    if options.only is not None:
        listed = read_listed(options.only, options.video_dir, options.jpg_dir)
    summary = Summary() if listed is None else Summary(listed.unmatched)
    n_jobs = min(options.n_jobs, MAX_JOBS) if options.n_jobs > 0 else os.cpu_count() or 1
    with Manifest(options.jpg_dir, options.shard) as manifest:
        suffix = extraction.frame_format.suffix
        jobs = partial(
            find_jobs,
            options.video_dir,
            options.jpg_dir,
            options.shard,
            suffix=suffix,
            only=None if listed is None else listed.names,
        )
        with Bar("extraction", sum(1 for _ in jobs()), "video") as bar:
            for outcome in extract_all(jobs(), extraction, manifest, n_jobs):
                summary.add(outcome)
                bar.update(1)
        manifest.write_moved(str(extraction.video_dir))
        if options.only is None:
            record_gone(manifest, keep=options.keep_gone)
    return summary


def _prune(
    orphans: Mapping[str, Orphan], jpg_dir: Path, frame_format: FrameFormat
) -> dict[str, Orphan]:
    """Remove orphans and return those that are kept."""
    removed = {place: orphan for place, orphan in orphans.items() if orphan.is_ours}
    prune(removed, jpg_dir, frame_format)
    print(f"--prune: the frames of {len(removed)} videos removed")
    kept = {place: orphan for place, orphan in orphans.items() if place not in removed}
    if kept:
        print("frames whose extraction is not in the manifest are not removed")
    return kept


def make_parser(name: str, description: str | None) -> Parser:
    parser = Parser(prog=f"util_scripts.{name}", description=description)
    add, above_0 = parser.add_argument, partial(_above_0, float)
    add("video_dir", type=INPUT, help="folder of folders of videos")
    add("jpg_dir", type=OUTPUT_FOLDER, help="where the frames go; made if missing")
    add("dataset", help="name of the dataset; has no effect")
    add("--n_jobs", type=int, default=-1, help="videos at a time; -1: one per CPU core")
    add("--fps", type=above_0, help="frames per second; -1: every frame")
    text = "with --fps: interpolate frames instead of repeating them"
    add("--interpolate", action="store_true", help=text)
    add("--size", type=partial(_above_0, int), default=240, help="shorter side in pixels (240)")
    text = "of the JPGs; 2 is best"
    add("--quality", type=int, choices=range(2, 32), metavar="2-31", help=text)
    add("--timeout", type=above_0, default=0, help="seconds per video; -1: no limit")
    add("--retry_failed", action="store_true", help="extract only the videos that failed before")
    add("--prune", action="store_true", help="remove the frames of videos that no longer exist")
    text = "extract only the videos in the column path of this table (CSV)"
    add("--only", type=INPUT, metavar="TABLE", help=text)
    text = "keep frames in indexes although their video was deleted, for example to save space"
    add("--keep_gone", action="store_true", help=text)
    text = (
        "extract part I of N of the videos, counted from 0; auto: as set by SLURM, torchrun, mpirun"
    )
    add("--shard", type=parse_shard, default=WHOLE, metavar="I/N", help=text)
    return parser


def _parse(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the options. Raises UserError."""
    options = parser.parse_args(argv)
    if options.size is None:
        raise UserError("--size -1: the shorter side needs at least 1 pixel")
    if options.prune and options.shard != WHOLE:
        raise UserError("--prune needs all videos: run it without --shard, after all shards")
    if options.prune and options.only is not None:
        raise UserError("--prune needs all videos: run it without --only")
    if options.prune and options.keep_gone:
        raise UserError("--prune cannot be combined with --keep_gone")
    if options.interpolate and options.fps is None:
        raise UserError("--interpolate needs --fps")
    _check_folders(options.video_dir, options.jpg_dir)
    return options


def _check_folders(video_dir: Path, jpg_dir: Path) -> None:
    """Raise UserError if there are no videos, or frames would lie among them."""
    if not video_dir.is_dir():
        raise UserError(f"{video_dir}: no such folder of videos")
    videos, frames = video_dir.resolve(), jpg_dir.resolve()
    if videos == frames or (jpg_dir.exists() and video_dir.samefile(jpg_dir)):
        raise UserError(
            f"{jpg_dir}: JPG_DIR is the same folder as VIDEO_DIR; give the frames their own, such "
            f"as {videos.parent / f'{videos.name}_jpg'}"
        )
    if videos.is_relative_to(frames):
        raise UserError(
            f"{jpg_dir}: JPG_DIR contains VIDEO_DIR {video_dir}, so videos would be mixed up with "
            f"frames; give the frames a folder beside it, such as {jpg_dir / 'jpg'}"
        )
    if next(find_jobs(video_dir, jpg_dir), None) is None:
        raise UserError(f"{video_dir}: holds no files")
    if frames.is_relative_to(videos):
        print(f"{jpg_dir}: JPG_DIR lies in VIDEO_DIR; videos in it are ignored")


def _above_0(kind: type, text: str) -> int | float | None:
    """Parse a number above 0, or -1 as None."""
    value = kind(text)
    if value == -1:
        return None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
