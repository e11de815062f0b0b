"""ROC, precision-recall and calibration compared with scikit-learn, on random cases with ties."""

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from evaluation.metrics import (
    auc,
    average_precision,
    calibration,
    error_by_chance,
    precision_recall_curve,
    roc_curve,
    thresholds_of,
)


def cases():
    """Few and many distinct scores, balanced and rare classes."""
    draw = np.random.default_rng(3)
    for n, n_values, share in ((2, 2, 0.5), (30, 3, 0.5), (300, 11, 0.1), (1000, 10**9, 0.7)):
        for _ in range(10):
            is_positive = draw.random(n) < share
            is_positive[:2] = [True, False]
            scores = draw.integers(0, n_values, n) / (n_values - 1)
            yield is_positive, np.clip(scores + 0.2 * is_positive * draw.random(n), 0, 1)


def test_curves_and_areas_agree_with_scikit_learn():
    for is_positive, scores in cases():
        counts = thresholds_of(is_positive, scores)
        fpr, tpr = roc_curve(counts)
        expected = reference.roc_curve(is_positive, scores, drop_intermediate=False)
        np.testing.assert_allclose(fpr, expected[0], atol=1e-12)
        np.testing.assert_allclose(tpr, expected[1], atol=1e-12)
        np.testing.assert_array_equal(
            counts.thresholds, expected[2][1:]
        )  # except the leading infinity
        area = reference.roc_auc_score(is_positive, scores)
        assert auc(fpr, tpr) == pytest.approx(area, abs=1e-12)

        precision, recall = precision_recall_curve(counts)
        theirs = reference.precision_recall_curve(is_positive, scores)
        np.testing.assert_allclose(precision, theirs[0][::-1], atol=1e-12)
        np.testing.assert_allclose(recall, theirs[1][::-1], atol=1e-12)
        area = reference.average_precision_score(is_positive, scores)
        assert average_precision(counts) == pytest.approx(area, abs=1e-12)


def test_accuracy_and_f1_agree_with_scikit_learn_at_every_threshold():
    is_positive, scores = next(iter(cases()))
    counts = thresholds_of(is_positive, scores)
    for number, threshold in enumerate(counts.thresholds):
        called = scores >= threshold
        assert counts.accuracy[number] == reference.accuracy_score(is_positive, called)
        assert counts.f1[number] == pytest.approx(reference.f1_score(is_positive, called))


def test_a_single_class_or_a_nan_score_is_an_error():
    with pytest.raises(ValueError, match="both classes"):
        thresholds_of(np.array([True, True]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="not finite"):
        thresholds_of(np.array([True, False]), np.array([0.1, np.nan]))


@pytest.mark.parametrize("n_bins", [5, 10, 15])
def test_calibration_agrees_with_scikit_learn(n_bins):
    for hits, scores in cases():
        found = calibration(scores, hits, n_bins)
        is_full = found.counts > 0
        accuracies, means = calibration_curve(hits, scores, n_bins=n_bins, strategy="uniform")
        np.testing.assert_allclose(found.accuracies[is_full], accuracies, atol=1e-12)
        np.testing.assert_allclose(found.scores[is_full], means, atol=1e-12)
        assert found.counts.sum() == len(hits)
        assert np.isnan(found.scores[~is_full]).all()


def test_the_error_by_chance_is_that_of_outcomes_drawn_from_the_scores():
    draw_from = np.random.default_rng(2)
    scores = draw_from.uniform(0.5, 1, 300)
    errors = [calibration(scores, draw_from.random(300) < scores).error for _ in range(400)]
    assert error_by_chance(scores) == pytest.approx(np.mean(errors), rel=0.1)
    assert error_by_chance(np.ones(10)) == 0


def test_the_calibration_error_is_the_mean_gap():
    scores = np.array([0.95, 0.95, 0.95, 0.95, 0.6])
    found = calibration(scores, np.array([True, True, False, False, True]))
    assert found.error == pytest.approx((4 * 0.45 + 1 * 0.4) / 5)
    sure = calibration(np.ones(3), np.ones(3, bool))
    assert sure.error == 0.0
