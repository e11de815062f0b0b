"""HDF5 and video files against folders of JPGs: time to create, disk space, loading."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.extraction import draw
from benchmarks.timing import Comparison, compare
from datasets.frame_readers import FrameSource, Hdf5Videos, JpgFolder, VideoFiles, default_decoder
from datasets.hdf5 import HDF5_SUFFIX
from datasets.records import CompactList, VideoRecord, compact_records
from datasets.video_dataset import Sample, SampleKey, VideoDataset
from media.frame_names import count_frames
from spatial_transforms import TrainView
from temporal_transforms import random_window
from util_scripts.generate_video_hdf5 import main as generate_video_hdf5
from util_scripts.generate_video_jpgs import main as generate_video_jpgs

MOST_VIDEOS = 60  # to load


class Format(NamedTuple):
    """A data set in one format."""

    seconds: float  # to create it
    n_bytes: int  # on disk, in whole blocks
    records: CompactList[VideoRecord]
    source: FrameSource


def comparisons() -> Iterator[Comparison]:
    """Use the class folders of videos in $BENCH_VIDEOS, or generated videos.

    Disk space and time are per 1,000 videos, created on all cores; one thread loads clips.
    """
    if find_spec("h5py") is None:
        print("formats: skipped, they need the package h5py")
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader worker
    with tempfile.TemporaryDirectory() as name:
        given = os.environ.get("BENCH_VIDEOS")
        videos = Path(given) if given else draw(Path(name) / "videos")
        yield from _against_jpg(videos, Path(name))
    torch.set_num_threads(threads)


def _against_jpg(videos: Path, work: Path) -> Iterator[Comparison]:
    jpg = _make(generate_video_jpgs, videos, work / "jpg")
    folders = sorted(path.parent for path in (work / "jpg").rglob("image_00001.jpg"))
    names = [folder.relative_to(work / "jpg") for folder in folders]
    counts = [count_frames(os.listdir(folder)).n_frames for folder in folders]
    thousands = len(folders) / 1000
    step = -(-len(folders) // MOST_VIDEOS)

    def made(
        cost: tuple[float, int], paths: Sequence[Path], source: FrameSource, first: int
    ) -> Format:
        records = (
            VideoRecord(path.name, path, first, first + count - 1, 0)
            for path, count in list(zip(paths, counts, strict=True))[::step]
        )
        return Format(*cost, compact_records(records), source)

    plain = made(jpg, folders, JpgFolder(default_decoder()), 1)
    hdf5 = _make(generate_video_hdf5, videos, work / "hdf5")
    files = [work / "hdf5" / name.with_name(f"{name.name}{HDF5_SUFFIX}") for name in names]
    forms = {"hdf5": made(hdf5, files, Hdf5Videos(default_decoder()), 0)}
    stems = {path.with_suffix(""): path for path in videos.rglob("*") if path.is_file()}
    originals = [stems[videos / name] for name in names]
    n_bytes = sum(path.stat().st_blocks * 512 for path in originals)
    forms["video files"] = made((0, n_bytes), originals, VideoFiles(default_decoder()), 1)
    for name, form in forms.items():
        title = f"{name} against jpg"
        costs = [("MB per 1,000", form.n_bytes / 1e6, plain.n_bytes / 1e6)]
        if form.seconds:
            costs.append(("seconds per 1,000", form.seconds, plain.seconds))
        for unit, ours, theirs in costs:
            yield Comparison(title, unit, ours / thousands, theirs / thousands, theirs / ours)
        title = f"{title}, training clips, one thread"
        yield compare(title, "clips/s", partial(_load, form), partial(_load, plain))


def _make(main: Callable[[Sequence[str]], int], videos: Path, target: Path) -> tuple[float, int]:
    """Run a command -> (seconds, bytes on disk)."""
    started = time.perf_counter()
    with redirect_stdout(StringIO()):
        main([str(videos), str(target), "bench"])
    seconds = time.perf_counter() - started
    return seconds, sum(path.lstat().st_blocks * 512 for path in target.rglob("*"))


def _load(form: Format) -> float:
    """Decode, crop and resize a training clip of each video."""
    temporal = partial(random_window, size=16)
    dataset = VideoDataset(form.records, form.source, temporal, TrainView(112))
    samples = (dataset[SampleKey(1, video)] for video in range(len(form.records)))
    return sum(len(sample.clips) for sample in samples if isinstance(sample, Sample))
