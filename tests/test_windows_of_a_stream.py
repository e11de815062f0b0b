import io
import threading

import pytest
import torch

from predict.windows import Frame, Prefetched, form_windows, read_ppm
from temporal_transforms import sliding_starts, window


def frames(n_frames, rate=10):
    for i in range(n_frames):
        pixels = torch.full((3, 2, 2), i, dtype=torch.uint8)
        yield Frame(i + 1, i / rate, (i + 1) / rate, pixels)


@pytest.mark.parametrize("n_frames", [0, 1, 3, 4, 5, 8, 9, 23])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("t_stride", [1, 3])
def test_windows_are_those_of_inference(n_frames, stride, t_stride):
    kept = range(1, n_frames + 1, t_stride)
    starts = sliding_starts(len(kept), 4, stride)
    expected = [[kept[i] for i in window(len(kept), 4, start)] for start in starts]
    seen = []

    def note(pixels):
        seen.append(int(pixels[0, 0, 0]) + 1)
        return pixels

    found = list(form_windows(frames(n_frames), note, size=4, stride=stride, t_stride=t_stride))
    assert [(w.clip[0, :, 0, 0] + 1).tolist() for w in found] == expected
    assert [w.segment for w in found] == [(min(e), max(e) + 1) for e in expected]
    for w, numbers in zip(found, expected, strict=True):
        assert (w.start, w.end) == ((numbers[0] - 1) / 10, max(numbers) / 10)
    assert len(seen) == len(set(seen))  # each frame is transformed once


def test_a_window_comes_with_its_last_frame():
    source = frames(100)
    first = next(form_windows(source, lambda pixels: pixels, size=4, stride=2))
    assert first.segment == (1, 5)
    assert next(source).number == 5


def test_pictures_of_a_pipe_tell_their_sizes():
    pipe = io.BytesIO(b"P6\n2 1\n255\nabcdef" + b"P6\n1 2\n255\nABCDEF" + b"P6\n9 9\n255\ncut")
    one, two = read_ppm(pipe), read_ppm(pipe)
    assert one.shape == (3, 1, 2) and bytes(one[:, 0, 1].tolist()) == b"def"
    assert two.shape == (3, 2, 1)
    assert read_ppm(pipe) is None and read_ppm(pipe) is None


def windows(n_frames):
    return form_windows(frames(n_frames), lambda pixels: pixels, size=1, stride=1)


def test_a_file_gives_every_window_in_bounded_batches():
    batches = list(Prefetched(windows(100), is_live=False).batches())
    assert [w.segment[0] for batch in batches for w in batch] == list(range(1, 101))
    assert max(map(len, batches)) <= 32


def test_a_live_stream_gives_the_newest_and_counts_the_others():
    prefetched = Prefetched(windows(10), is_live=True)
    prefetched._thread.join()  # all ten are there before the first is asked for
    (batch,) = prefetched.batches()
    assert [w.segment[0] for w in batch] == [10]
    assert prefetched.n_skipped == 9


def test_what_goes_wrong_in_the_thread_is_raised_after_what_came_before():
    def broken():
        yield from windows(2)
        raise ValueError("broken")

    batches = Prefetched(broken(), is_live=False).batches()
    with pytest.raises(ValueError, match="broken"):
        for batch in batches:
            assert batch


def test_a_thread_that_waits_ends_when_nobody_wants_more():
    prefetched = Prefetched(windows(200), is_live=False)
    prefetched.close()
    assert prefetched._thread not in threading.enumerate()
