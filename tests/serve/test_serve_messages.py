"""What the worker of util_scripts.serve keeps and sends of each window."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from predict.predictions import ScoredWindow, VideoResult
from serving.highlights import N_KEPT, BestWindows
from serving.hub import SCORES, EventLog, Task, Video
from serving.publishing import N_MEANS, N_SCORES, Publisher

CLIP = torch.zeros(3, 4, 8, 8, dtype=torch.uint8)


def windows_of(n_labels, n_windows=40):
    """Windows with random scores, in the middle of which others become high."""
    random = np.random.default_rng(0)
    bias = np.zeros(n_labels)
    for number in range(n_windows):
        if number % 10 == 0:
            bias = 6 * random.random(n_labels)
        logits = np.exp(bias + random.normal(size=n_labels))
        scores = logits / logits.sum()
        yield ScoredWindow((number + 1, number + 5), number, number + 4, scores, CLIP)


def test_the_highest_scores_and_means_are_sent(tmp_path):
    log = EventLog()
    video = Video("v", "a.avi", tmp_path / "v", log)
    publisher = Publisher(Task(SCORES, video, tmp_path / "upload"))
    windows = list(windows_of(n_labels=700))
    for window in windows:
        publisher.window(window)
    publisher.end(VideoResult("a.avi", frames=44, seconds=44.0))
    lines = [line for _, line in log.after(0)]
    assert max(map(len, lines)) < 1000  # bytes: a page holds thousands
    *messages, last = map(json.loads, lines)
    assert last["totals"] == {"frames": 44, "seconds": 44.0, "is_cut": False}
    for number, (message, window) in enumerate(zip(messages, windows, strict=True), start=1):
        labels, scores = zip(*message["window"]["scores"], strict=True)
        assert list(labels) == np.argsort(-window.scores)[:N_SCORES].tolist()
        assert scores == pytest.approx(window.scores[list(labels)], abs=1e-4)
        mean = np.mean([w.scores for w in windows[:number]], axis=0)
        assert [label for label, _ in message["means"]] == np.argsort(-mean)[:N_MEANS].tolist()
    assert Image.open(video.folder / f"{len(windows) - 1}.jpg").size == (8, 8)


@pytest.mark.parametrize("n_labels", [2, 3, 16, 700])
def test_the_window_with_the_highest_score_of_a_label_is_kept(n_labels):
    """Whether or not the label has the highest score in it."""
    sink = BestWindows()
    windows = list(windows_of(n_labels))
    for window in windows:
        sink.window(window)
    scores = np.stack([window.scores for window in windows])  # (N, K)
    assert len(sink.best) == min(n_labels, N_KEPT)
    for label, window in sink.best.items():
        assert window is windows[scores[:, label].argmax()]


def test_a_label_that_is_never_the_first_has_a_best_window():
    sink = BestWindows()
    for number, second in enumerate([0.1, 0.3, 0.2]):
        scores = np.array([0.95 - second, second, 0.05])
        sink.window(ScoredWindow((number, number + 4), number, number + 1, scores, CLIP))
    assert [sink.best[label].start for label in range(3)] == [0, 1, 0]
