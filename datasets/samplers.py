"""Batches of sample keys, and their order. Free of torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

MAX_WINDOWS = 32  # clips in a batch of inference: bounds the memory of a loader process


class SampleKey(NamedTuple):
    """Identifies a sample; its random draws depend only on this key and the seed.

    `windows` selects some of the video's windows as (start, stop); None means all.
    """

    epoch: int
    video: int
    windows: tuple[int, int] | None = None
    repeat: int = 0  # of a video that is in the same epoch several times


class ShuffledBatches:
    """Batches of keys in an order that depends only on (seed, epoch).

    Process `rank` of `size` gets every `size`-th video of each batch, starting at `rank`; it may
    get none of a batch smaller than `size`. With the videos' `labels`, an epoch has as many videos
    of each class, and as many in all as without: some several times, and others not at all.
    """

    def __init__(
        self,
        n_videos: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        size: int = 1,
        labels: Sequence[int] | None = None,
    ) -> None:
        self.n_videos, self.batch_size, self.seed = n_videos, batch_size, seed
        self.rank, self.size = rank, size
        self.labels = None if labels is None else np.asarray(labels)
        self.begin(1)

    def begin(self, epoch: int, *, after: int = 0, every_video_once: bool = False) -> None:
        """Set the epoch of the next pass, and how many of its batches to skip.

        `every_video_once`: also where epochs are balanced.
        """
        self.epoch, self.after, self.every_video_once = epoch, after, every_video_once

    def __len__(self) -> int:
        return -(-self.n_videos // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.labels is None or self.every_video_once:
            order, repeats = rng.permutation(self.n_videos), np.zeros(self.n_videos, np.int64)
        else:
            order, repeats = _balanced_order(self.labels, rng)
        for start in range(self.after * self.batch_size, self.n_videos, self.batch_size):
            part = slice(start + self.rank, min(start + self.batch_size, self.n_videos), self.size)
            pairs = zip(order[part].tolist(), repeats[part].tolist(), strict=True)
            yield [SampleKey(self.epoch, video, repeat=repeat) for video, repeat in pairs]

    @property
    def has_single_clip(self) -> bool:
        """Whether some batch of an epoch gives some process a single clip."""
        n_last = self.n_videos % self.batch_size or self.batch_size
        sizes = (min(self.n_videos, self.batch_size), min(self.n_videos, n_last))
        return any(0 < n_clips < 2 * self.size for n_clips in sizes)

    def clips_around(self, number: int, group: int) -> int:
        """Count the clips of all processes in the group of `group` batches that contains batch
        `number`."""
        start = number // group * group
        return min(self.n_videos, (start + group) * self.batch_size) - start * self.batch_size


def _balanced_order(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw len(labels) videos, the same number of each class up to rounding, in random order.

    Returns their numbers, and how often each was drawn before. A class repeats a video only after
    all of its videos.
    """
    classes = np.unique(labels)
    n_each = -(-len(labels) // len(classes))
    drawn = []
    for label in classes:
        videos = np.flatnonzero(labels == label)
        n_rounds = -(-n_each // len(videos))
        rounds = [rng.permutation(videos) for _ in range(n_rounds)]
        repeats = np.repeat(np.arange(n_rounds), len(videos))
        drawn.append(np.stack([np.concatenate(rounds), repeats])[:, :n_each])
    together = np.concatenate(drawn, axis=1)
    order = rng.permutation(together.shape[1])[: len(labels)]
    return together[0, order], together[1, order]


class OrderedBatches:
    """Batches of keys in the order of the videos, for validation."""

    def __init__(self, videos: range, batch_size: int) -> None:
        self.videos, self.batch_size = videos, batch_size

    @property
    def n_videos(self) -> int:
        return len(self.videos)

    def __len__(self) -> int:
        return -(-len(self.videos) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(0, len(self.videos), self.batch_size):
            yield [SampleKey(0, i) for i in self.videos[start : start + self.batch_size]]


class WindowBatches:
    """Batches of windows in order, for inference: at most `per_batch` videos and MAX_WINDOWS
    clips each, so that a long video is spread over several. A window makes `clips_per_window`
    clips. `may_mix`: a forward pass may take clips of several batches."""

    def __init__(
        self,
        window_counts: Mapping[int, int],
        per_batch: int,
        *,
        clips_per_window: int = 1,
        may_mix: bool = True,
    ) -> None:
        self.window_counts, self.per_batch, self.may_mix = window_counts, per_batch, may_mix
        self.clips_per_window = clips_per_window

    @property
    def n_videos(self) -> int:
        return len(self.window_counts)

    @property
    def n_windows(self) -> int:
        return sum(self.window_counts.values())

    @property
    def n_clips(self) -> int:
        return self.n_windows * self.clips_per_window

    def __iter__(self) -> Iterator[list[SampleKey]]:
        batch: list[SampleKey] = []
        room = most = max(1, MAX_WINDOWS // self.clips_per_window)
        for video, count in self.window_counts.items():
            start = 0
            while start < count:
                stop = min(count, start + room)
                batch.append(SampleKey(0, video, (start, stop)))
                room -= stop - start
                start = stop
                if room == 0 or len(batch) == self.per_batch:
                    yield batch
                    batch, room = [], most
        if batch:
            yield batch

    def __len__(self) -> int:
        return sum(1 for _ in self)
