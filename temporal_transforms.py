"""Temporal transforms: which frames make up a clip. Arithmetic on frame positions only.

A video has positions 0 … n_frames - 1, and a clip is a list of `size` positions. A clip that
extends past the end of the video repeats from its own start. The rules are those of the original
(kenshohara/3D-ResNets-PyTorch, temporal_transforms.py), which its reported results depend on.
"""

import math
from collections.abc import Sequence
from itertools import cycle, islice
from random import Random


def window(n_frames: int, size: int, start: int) -> list[int]:
    """Return `size` positions from `start` on, repeated from `start` at the end of the video."""
    return list(islice(cycle(range(start, min(start + size, n_frames))), size))


def random_window(n_frames: int, rng: Random, *, size: int) -> list[list[int]]:
    """Return one clip whose start is uniform among those that fit; shorter videos are repeated."""
    return [window(n_frames, size, rng.randrange(max(1, n_frames - size + 1)))]


def center_window(n_frames: int, rng: Random | None = None, *, size: int) -> list[list[int]]:
    """Return the clip in the middle; `rng` is unused."""
    return [window(n_frames, size, start) for start in even_starts(n_frames, size, 1)]


def even_windows(
    n_frames: int, rng: Random | None = None, *, size: int, n_samples: int
) -> list[list[int]]:
    """Return the clips of `even_starts`; `rng` is unused."""
    return [window(n_frames, size, start) for start in even_starts(n_frames, size, n_samples)]


def even_starts(n_frames: int, size: int, n_clips: int) -> Sequence[int]:
    """Return the starts of at most `n_clips` evenly spaced clips, up to the first that extends past
    the end. A single clip is the one in the middle."""
    if n_clips == 1:
        return [max(0, n_frames // 2 - size // 2)]
    stride = max(1, math.ceil((n_frames - 1 - size) / (n_clips - 1)))
    return sliding_starts(n_frames, size, stride)[:n_clips]


def spread_starts(n_frames: int, size: int, n_clips: int) -> Sequence[int]:
    """Return the starts of at most `n_clips` different clips, spread from the start of the video to
    its end, all inside it if it is long enough. A single clip is the one in the middle.

    The rule of the 10 clips that papers score (Feichtenhofer et al., arXiv:1812.03982). The last of
    `even_starts`, validation's, may extend past the end, where it jumps back to its start.
    """
    if n_clips == 1:
        return even_starts(n_frames, size, 1)
    last = max(0, n_frames - size)
    return sorted({last * i // (n_clips - 1) for i in range(n_clips)})


def sliding_starts(n_frames: int, size: int, stride: int) -> range:
    """Return the starts of sliding windows: every `stride` frames, up to the first window that
    extends past the end."""
    n_inside = (n_frames - size) // stride + 1 if n_frames >= size else 0
    return range(0, n_frames, stride)[: n_inside + 1]
