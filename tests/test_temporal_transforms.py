from random import Random

import pytest

from temporal_transforms import (
    center_window,
    even_windows,
    random_window,
    sliding_starts,
    window,
)


def test_windows_repeat_from_their_own_start():
    assert window(10, 4, 3) == [3, 4, 5, 6]
    assert window(10, 4, 8) == [8, 9, 8, 9]
    assert window(3, 8, 0) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_random_window_reaches_every_start():
    rng = Random(0)
    starts = {random_window(20, rng, size=16)[0][0] for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}


def test_random_window_of_a_short_video():
    assert random_window(5, Random(0), size=8) == [[0, 1, 2, 3, 4, 0, 1, 2]]


@pytest.mark.parametrize(
    ("n_frames", "size", "start"), [(20, 16, 2), (17, 16, 0), (16, 16, 0), (7, 4, 1), (3, 4, 0)]
)
def test_center_window(n_frames, size, start):
    assert center_window(n_frames, size=size)[0][0] == start


def original_even_crop(n_frames, size, n_samples):
    """The original's implementation."""
    import math

    indices = list(range(n_frames))
    stride = max(1, math.ceil((n_frames - 1 - size) / (n_samples - 1)))
    out = []
    for begin in indices[::stride]:
        if len(out) >= n_samples:
            break
        sample = indices[begin : begin + size]
        if len(sample) < size:
            out.append((sample * size)[:size])
            break
        out.append(sample)
    return out


@pytest.mark.parametrize("n_samples", [2, 3, 5])
@pytest.mark.parametrize("size", [4, 16])
def test_even_windows_match_the_original(size, n_samples):
    for n_frames in range(1, 80):
        expected = original_even_crop(n_frames, size, n_samples)
        assert even_windows(n_frames, size=size, n_samples=n_samples) == expected


def test_even_windows_special_cases():
    assert len(even_windows(16, size=16, n_samples=3)) == 2
    assert even_windows(40, size=16, n_samples=1) == center_window(40, size=16)


@pytest.mark.parametrize(
    ("n_frames", "size", "stride", "starts"),
    [
        (32, 16, 16, [0, 16]),
        (33, 16, 16, [0, 16, 32]),
        (29, 16, 8, [0, 8, 16]),
        (16, 16, 1, [0, 1]),
        (5, 16, 16, [0]),
        (40, 4, 16, [0, 16, 32]),
    ],
)
def test_sliding_starts(n_frames, size, stride, starts):
    assert list(sliding_starts(n_frames, size, stride)) == starts
