"""Videos as clips: the dataset, its batches, and the loader."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.frame_readers import FrameError, FrameSource
from datasets.records import VideoRecord
from datasets.samplers import OrderedBatches, SampleKey, ShuffledBatches, WindowBatches
from datasets.shared_memory import CAN_SHARE, Parcel
from datasets.workers import Workers
from errors import UserError
from spatial_transforms import View, apply_views
from temporal_transforms import sliding_starts, spread_starts, window

N_PROBED = 16  # videos of which two frames are read before a run

log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """The clips of one video that belong to one sample."""

    clips: Tensor  # uint8 (N, C, T, H, W)
    video: int
    label: int
    segments: list[tuple[int, int]]  # per clip: first frame number, last frame number + 1


class BadSample(NamedTuple):
    """A sample that could not be read, and why."""

    video: int
    reason: str


class ClipBatch(NamedTuple):
    """Clips of one or more videos, with label and video number of each clip."""

    clips: Tensor  # uint8 (B, C, T, H, W)
    labels: Tensor  # int64 (B,), -1 for unlabelled
    videos: Tensor  # int64 (B,)
    segments: list[tuple[int, int]]
    bad: list[BadSample]

    @property
    def n_videos(self) -> int:
        """Including unreadable ones."""
        return len({*self.videos.tolist()}) + len(self.bad)


class SpatialTransform(Protocol):
    def views(self, height: int, width: int, rng: Random) -> list[View]: ...


class TemporalTransform(Protocol):
    def __call__(self, n_frames: int, rng: Random) -> list[list[int]]: ...


@dataclass(frozen=True)
class InferenceWindows:
    """The windows of inference: `n_clips` evenly spaced ones, or sliding windows if it is 0. A
    SampleKey may select some of them."""

    size: int
    stride: int
    n_clips: int = 0

    def count(self, n_frames: int) -> int:
        return len(self._starts(n_frames))

    def part(self, n_frames: int, start: int, stop: int) -> list[list[int]]:
        starts = self._starts(n_frames)[start:stop]
        return [window(n_frames, self.size, first) for first in starts]

    def _starts(self, n_frames: int) -> Sequence[int]:
        if self.n_clips:
            return spread_starts(n_frames, self.size, self.n_clips)
        return sliding_starts(n_frames, self.size, self.stride)

    def __call__(self, n_frames: int, rng: Random) -> list[list[int]]:
        return self.part(n_frames, 0, self.count(n_frames))


@dataclass(frozen=True)
class VideoDataset(Dataset[Sample | BadSample]):
    """Videos as clips. `temporal` gets and returns positions among every `t_stride`-th frame."""

    records: Sequence[VideoRecord]
    source: FrameSource
    temporal: TemporalTransform
    spatial: SpatialTransform
    t_stride: int = 1
    seed: int = 0

    def __len__(self) -> int:
        return len(self.records)

    def kept_frames(self, video: int) -> range:
        """Return the numbers of the frames of a video that clips are made of."""
        record = self.records[video]
        return range(record.first, record.last + 1, self.t_stride)

    def __getitem__(self, key: SampleKey) -> Sample | BadSample:
        repeat = f"/{key.repeat}" if key.repeat else ""
        rng = Random(f"{self.seed}/{key.epoch}/{key.video}{repeat}")
        kept = self.kept_frames(key.video)
        if key.windows is None:
            windows = self.temporal(len(kept), rng)
        else:
            assert isinstance(self.temporal, InferenceWindows)
            windows = self.temporal.part(len(kept), *key.windows)
        try:
            clips = self._read_clips(key.video, kept, windows, rng)
        except FrameError as error:
            return BadSample(key.video, str(error))
        segments = [(kept[min(w)], kept[max(w)] + 1) for w in windows]
        n_views = len(clips) // len(windows)
        segments = [segment for segment in segments for _ in range(n_views)]
        return Sample(clips, key.video, self.records[key.video].label, segments)

    def _read_clips(self, video: int, kept: range, windows: list[list[int]], rng: Random) -> Tensor:
        """Read the clips of all views of the windows, window by window: (N * views, C, T, H, W).

        A frame is decoded once even if several clips share it.
        """
        folder = self.records[video].path
        positions = sorted(set(itertools.chain.from_iterable(windows)))
        frames = self.source.read(folder, [kept[position] for position in positions])
        _, height, width = frames[0].shape
        for position, frame in zip(positions, frames, strict=True):
            if frame.shape != frames[0].shape:
                raise FrameError(
                    f"{folder}: frame {kept[position]} is {frame.shape[2]}x{frame.shape[1]}, "
                    f"frame {kept[positions[0]]} {width}x{height}"
                )
        place = {position: i for i, position in enumerate(positions)}
        rows = torch.tensor([[place[position] for position in w] for w in windows])  # (N, T)
        views = apply_views(frames, self.spatial.views(height, width, rng))  # (T', C, H, W) each
        clips = [pixels[rows] for pixels in views]  # (N, T, C, H, W) each
        joined = clips[0] if len(clips) == 1 else torch.stack(clips, dim=1).flatten(0, 1)
        return joined.transpose(1, 2)  # (N * views, T, C, H, W) -> (N * views, C, T, H, W)


def collate(samples: Sequence[Sample | BadSample]) -> ClipBatch:
    """Make one batch of all clips; unreadable samples are listed in `bad`."""
    clips = _clips(samples)
    together = torch.cat(clips) if clips else torch.empty(0, dtype=torch.uint8)
    return _batch(together, *_about(samples))


def send(samples: Sequence[Sample | BadSample]) -> Parcel[ClipBatch]:
    """Like collate, but for a batch that is sent to another process."""
    return Parcel(_batch, _clips(samples), *_about(samples))


def _clips(samples: Sequence[Sample | BadSample]) -> list[Tensor]:
    return [sample.clips for sample in samples if isinstance(sample, Sample)]


def _about(
    samples: Sequence[Sample | BadSample],
) -> tuple[list[int], list[int], list[tuple[int, int]], list[BadSample]]:
    """Return label, video and segment of every clip, and the unreadable samples."""
    good = [sample for sample in samples if isinstance(sample, Sample)]
    return (
        [s.label for s in good for _ in s.segments],
        [s.video for s in good for _ in s.segments],
        [segment for s in good for segment in s.segments],
        [sample for sample in samples if isinstance(sample, BadSample)],
    )


def _batch(
    clips: Tensor,
    labels: list[int],
    videos: list[int],
    segments: list[tuple[int, int]],
    bad: list[BadSample],
) -> ClipBatch:
    numbers = [torch.tensor(column, dtype=torch.int64) for column in (labels, videos)]
    return ClipBatch(clips, numbers[0], numbers[1], segments, bad)


def in_batches_of(size: int, batches: Iterable[ClipBatch]) -> Iterator[ClipBatch]:
    """Regroup clips, in the same order, into batches of `size`; the last may be smaller."""
    held: list[ClipBatch] = []
    room = size
    for batch in batches:
        start = 0
        while start < len(batch.labels):
            held.append(_part(batch, slice(start, start + room)))
            room -= len(held[-1].labels)
            start += len(held[-1].labels)
            if room == 0:
                yield _joined(held)
                held, room = [], size
    if held:
        yield _joined(held)


def _part(batch: ClipBatch, part: slice) -> ClipBatch:
    clips, labels, videos = batch.clips[part], batch.labels[part], batch.videos[part]
    return ClipBatch(clips, labels, videos, batch.segments[part], [])


def _joined(parts: Sequence[ClipBatch]) -> ClipBatch:
    clips = torch.cat([part.clips for part in parts])
    labels = torch.cat([part.labels for part in parts])
    videos = torch.cat([part.videos for part in parts])
    return ClipBatch(clips, labels, videos, [s for part in parts for s in part.segments], [])


Batches = TypeVar("Batches", ShuffledBatches, OrderedBatches, WindowBatches)


class ValLoader(Protocol):
    """Batches of clips, or of cached features."""

    skipped: list[str]

    @property
    def n_videos(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ClipBatch]: ...

    def video_id(self, video: int) -> str: ...


class TrainLoader(ValLoader, Protocol):
    """A loader whose order is drawn anew for each epoch."""

    batches: ShuffledBatches


@dataclass
class ClipLoader(Generic[Batches]):
    """Iterates over batches, which may be empty. With `skip_bad`, unreadable samples are collected
    in `skipped`; otherwise they raise UserError. Worker processes run from the first pass until
    close()."""

    dataset: VideoDataset
    batches: Batches
    n_workers: int
    skip_bad: bool
    pin_memory: bool = False
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._workers: Workers[SampleKey, ClipBatch] = Workers(
            self.dataset,
            self.batches,
            collate,
            n_workers=self.n_workers,
            send=send if CAN_SHARE else None,
            pin_memory=self.pin_memory,
        )

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def n_videos(self) -> int:
        """Videos per pass of this process."""
        return self.batches.n_videos

    def video_id(self, video: int) -> str:
        return self.dataset.records[video].video_id

    def probe(self) -> None:
        """Read the first and last frame of some videos, to find a wrong index before a long run.

        Raises UserError as an iteration does.
        """
        n_videos = len(self.dataset)
        for video in range(0, n_videos, -(-n_videos // N_PROBED)):
            record = self.dataset.records[video]
            try:
                self.dataset.source.read(record.path, [record.first, record.last])
            except FrameError as error:
                self._handle_bad([BadSample(video, str(error))])
                log.warning("%s", error)

    def __iter__(self) -> Iterator[ClipBatch]:
        self.skipped = []
        for batch in self._workers:
            self._handle_bad(batch.bad)
            yield batch

    def close(self) -> None:
        """End the workers; the next pass starts new ones."""
        self._workers.close()

    def _handle_bad(self, bad: Iterable[BadSample]) -> None:
        for sample in bad:
            if not self.skip_bad:
                remedy = self.dataset.source.remedy.format(self.video_id(sample.video))
                raise UserError(
                    f"{sample.reason}; {remedy}, or skip such samples with --on_bad_video skip"
                )
            self.skipped.append(sample.reason)
