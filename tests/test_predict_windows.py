import io
import threading
import time

import pytest
import torch

from predict.video_reader import Frame, read_ppm
from predict.windows import WindowPrefetcher, form_windows
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


def test_a_window_is_yielded_with_its_last_frame():
    source = frames(100)
    first = next(form_windows(source, lambda pixels: pixels, size=4, stride=2))
    assert first.segment == (1, 5)
    assert next(source).number == 5


def test_ppm_pictures_in_a_pipe_may_differ_in_size():
    pipe = io.BytesIO(b"P6\n2 1\n255\nabcdef" + b"P6\n1 2\n255\nABCDEF" + b"P6\n9 9\n255\ncut")
    one, two = read_ppm(pipe), read_ppm(pipe)
    assert one.shape == (3, 1, 2)
    assert bytes(one[:, 0, 1].tolist()) == b"def"
    assert two.shape == (3, 2, 1)
    assert read_ppm(pipe) is None
    assert read_ppm(pipe) is None


def windows(n_frames):
    return form_windows(frames(n_frames), lambda pixels: pixels, size=1, stride=1)


def test_a_file_gives_every_window_in_bounded_batches():
    batches = list(WindowPrefetcher(windows(100), is_live=False).batches())
    assert [w.segment[0] for batch in batches for w in batch] == list(range(1, 101))
    assert max(map(len, batches)) <= 32


def test_a_live_stream_yields_the_newest_window_and_counts_the_skipped():
    prefetcher = WindowPrefetcher(windows(10), is_live=True)
    prefetcher._thread.join()  # all ten are there before the first is asked for
    (batch,) = prefetcher.batches()
    assert [w.segment[0] for w in batch] == [10]
    assert prefetcher.n_skipped == 9


def test_windows_of_a_live_stream_do_not_pile_up():
    """Memory does not grow, however long nobody asks."""
    may_end = threading.Event()

    def endless():
        yield from windows(60)
        may_end.wait(60)

    prefetcher = WindowPrefetcher(endless(), is_live=True)
    while prefetcher._n_replaced < 59:
        time.sleep(0.01)
    assert prefetcher._queue.qsize() == 1
    may_end.set()
    prefetcher.close()


def test_an_error_in_the_thread_is_raised_after_the_windows_before_it():
    def broken():
        yield from windows(2)
        raise ValueError("broken")

    batches = WindowPrefetcher(broken(), is_live=False).batches()
    with pytest.raises(ValueError, match="broken"):
        for batch in batches:
            assert batch


def test_close_ends_a_waiting_thread():
    prefetcher = WindowPrefetcher(windows(200), is_live=False)
    prefetcher.close()
    assert prefetcher._thread not in threading.enumerate()
