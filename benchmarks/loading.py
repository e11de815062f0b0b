"""Load clips from JPG folders with one thread: training, validation, inference, decoding only."""

import contextlib
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from random import Random

import torch

from benchmarks import plain
from benchmarks.frames import frame_folders
from benchmarks.timing import Comparison, compare, rate
from datasets.frame_readers import JpgFolder, default_decoder
from datasets.records import CompactList, VideoRecord, compact_records
from datasets.video_dataset import (
    InferenceWindows,
    Sample,
    SampleKey,
    SpatialTransform,
    VideoDataset,
)
from media.frame_names import count_frames
from spatial_transforms import EvalView, TrainView
from temporal_transforms import even_windows, random_window

SIZE, DURATION, N_VAL, STRIDE = 112, 16, 3, 16
MOST_VIDEOS = 60


def comparisons() -> Iterator[Comparison]:
    """Use the frame folders in $BENCH_FRAMES, or those of generated videos."""
    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        yield from _phases(_records(frame_folders(Path(folder))))


def of_training_clips(frames: Path) -> Comparison:
    """Compare the loading of training clips from frame folders with one thread."""
    with _one_thread(), contextlib.closing(_phases(_records(frames))) as rows:
        return next(rows)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """As in a loader worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _records(root: Path) -> CompactList[VideoRecord]:
    folders = sorted({path.parent for path in root.rglob("image_00001.jpg")})
    step = max(1, len(folders) // MOST_VIDEOS)
    counts = ((f, count_frames(p.name for p in f.iterdir()).n_frames) for f in folders[::step])
    return compact_records(VideoRecord(f.name, f, 1, n, 0) for f, n in counts)


def _phases(records: CompactList[VideoRecord]) -> Generator[Comparison, None, None]:
    source, seeded = JpgFolder(default_decoder()), Random(1)

    def ours(temporal: Callable, spatial: SpatialTransform) -> Callable[[], float]:
        dataset = VideoDataset(records, source, temporal, spatial)

        def work() -> float:
            samples = (dataset[SampleKey(1, video)] for video in range(len(records)))
            return sum(len(sample.clips) for sample in samples if isinstance(sample, Sample))

        return work

    def theirs(windows: Callable[[int], list[list[int]]], load: Callable) -> Callable[[], float]:
        def work() -> float:
            n_clips = 0
            for record in records:
                for positions in windows(record.n_frames):
                    load(record.path, [record.first + position for position in positions])
                    n_clips += 1
            return n_clips

        return work

    def crop(n_frames: int, rng: Random = seeded) -> list[list[int]]:
        return random_window(n_frames, rng, size=DURATION)

    def even(n_frames: int, rng: Random | None = None) -> list[list[int]]:
        return even_windows(n_frames, size=DURATION, n_samples=N_VAL)

    decoding = _decoding(records, source)
    limit = rate(decoding[0])
    yield compare(
        "loading of training clips, one thread",
        "clips/s",
        ours(crop, TrainView(SIZE)),
        theirs(crop, plain.train_clip),
        limit=limit,
    )
    yield compare(
        "loading of validation clips, one thread",
        "clips/s",
        ours(even, EvalView(SIZE)),
        theirs(even, plain.eval_clip),
        limit=limit,
    )
    sliding = InferenceWindows(DURATION, STRIDE)
    yield compare(
        "loading of inference clips, one thread",
        "clips/s",
        ours(sliding, EvalView(SIZE)),
        theirs(lambda n_frames: sliding(n_frames, Random()), plain.eval_clip),
        limit=limit,
    )
    yield compare("decoding of 16 frames alone, one thread", "clips/s", *decoding)


def _decoding(
    records: CompactList[VideoRecord], source: JpgFolder
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Decode the first 16 frames of each video, with ours and with Pillow."""
    numbers = list(range(1, 17))

    def ours() -> float:
        return sum(len(source.read(record.path, numbers)) / 16 for record in records)

    def theirs() -> float:
        return sum(len(plain.load_clip(record.path, numbers)) / 16 for record in records)

    return ours, theirs
