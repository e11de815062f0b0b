import numpy as np
import pytest

from evaluation.metrics import (
    confusion_matrix,
    interval_width,
    mean_class_accuracy,
    more_to_halve,
    topk_hits,
    wilson_interval,
)


def test_topk_hits_agree_with_sorting():
    draw = np.random.default_rng(0)
    scores = draw.integers(0, 4, (200, 7)).astype(np.float32)  # few values: many ties
    targets = draw.integers(0, 7, 200)
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 2, 5, 7, 9):
        expected = (order[:, :k] == targets[:, None]).any(axis=1)
        np.testing.assert_array_equal(topk_hits(scores, targets, k), expected)


def test_the_lower_class_number_wins_ties():
    scores = np.array([[0.5, 0.5]] * 2)
    assert topk_hits(scores, np.array([0, 1]), 1).tolist() == [True, False]


def test_nan_and_missing_labels_are_misses():
    nan = np.nan
    scores = np.array([[nan, nan], [nan, 0.1], [nan, 0.1], [0.9, nan], [0.9, 0.1]])
    hits = topk_hits(scores, np.array([0, 1, 0, 1, -1]), 1)
    assert hits.tolist() == [False, True, False, False, False]
    assert topk_hits(scores, np.array([0, 1, 0, 1, -1]), 2).tolist() == hits.tolist()


def test_no_samples():
    assert topk_hits(np.zeros((0, 3)), np.zeros(0, np.int64), 1).shape == (0,)


def test_mean_class_accuracy_weights_classes_equally():
    hits = np.array([True, True, True, False, False])
    targets = np.array([0, 0, 0, 0, 5])
    assert mean_class_accuracy(hits, targets) == pytest.approx((0.75 + 0.0) / 2)


def test_confusion_matrix():
    matrix = confusion_matrix(np.array([0, 0, 2, 0]), np.array([1, 1, 2, 0]), 3)
    assert matrix.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        (8, 10, (0.4901624715, 0.9433178485)),
        (0, 10, (0.0, 0.2775327998)),
        (10, 10, (0.7224672002, 1.0)),
    ],
)
def test_wilson_interval(successes, n, expected):
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=1e-6)


def test_wilson_bounds_solve_the_score_equation():
    for bound in wilson_interval(250, 304):
        deviation = abs(250 / 304 - bound) / (bound * (1 - bound) / 304) ** 0.5
        assert deviation == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(34, 40), (20, 40), (9, 10), (500, 560), (0, 100)])
def test_that_many_more_videos_halve_the_interval(successes, n):
    total = n + more_to_halve(successes, n)
    ratio = interval_width(round(total * successes / n), total) / interval_width(successes, n)
    assert 0.45 < ratio < 0.53


def test_an_interval_needs_a_sample():
    with pytest.raises(ValueError, match="at least one"):
        wilson_interval(0, 0)
