"""Which frames make a clip: arithmetic on positions, free of files and of torch.

A video is `n_frames` positions 0 … n-1. Every function returns clips as lists of positions of
length `size`; a clip that reaches past the end is looped from its own start. The rules are the
original's (kenshohara/3D-ResNets-PyTorch, temporal_transforms.py), which its results depend on.
"""

import math
from itertools import cycle, islice
from random import Random


def window(n_frames: int, size: int, start: int) -> list[int]:
    """The `size` positions from `start` on, looped from `start` where the video ends."""
    return list(islice(cycle(range(start, min(start + size, n_frames))), size))


def random_window(n_frames: int, rng: Random, *, size: int) -> list[list[int]]:
    """One clip from a uniform start among all that fit; a shorter video is looped."""
    return [window(n_frames, size, rng.randrange(max(1, n_frames - size + 1)))]


def center_window(n_frames: int, rng: Random | None = None, *, size: int) -> list[list[int]]:
    """The clip in the middle; draws nothing."""
    return [window(n_frames, size, max(0, n_frames // 2 - size // 2))]


def even_windows(
    n_frames: int, rng: Random | None = None, *, size: int, n_samples: int
) -> list[list[int]]:
    """At most `n_samples` clips at even steps; the first that reaches past the end is the last.

    A single sample is the clip in the middle. Draws nothing.
    """
    if n_samples == 1:
        return center_window(n_frames, size=size)
    stride = max(1, math.ceil((n_frames - 1 - size) / (n_samples - 1)))
    starts = sliding_starts(n_frames, size, stride)[:n_samples]
    return [window(n_frames, size, start) for start in starts]


def sliding_starts(n_frames: int, size: int, stride: int) -> range:
    """Where the windows of inference start: every `stride` frames, and the first window that
    reaches past the end is the last."""
    n_inside = (n_frames - size) // stride + 1 if n_frames >= size else 0
    return range(0, n_frames, stride)[: n_inside + 1]
