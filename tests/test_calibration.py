import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_score, recall_score

from linear_cifar.calibration import expected_calibration_error, label_metrics, reliability


def predictions(n=500):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1.0, n)
    return confidence, rng.random(n) < confidence**2


def test_bins_match_scikit_learns():
    confidence, right = predictions()
    binned = reliability(confidence, right, bins=5)
    shares, means = calibration_curve(right, confidence, n_bins=5)
    seen = binned.counts > 0
    np.testing.assert_allclose(binned.accuracy[seen], shares)
    np.testing.assert_allclose(binned.confidence[seen], means)
    assert binned.counts.sum() == 500


def test_edges_and_empty_bins():
    binned = reliability(np.array([0.0, 0.5, 1.0]), np.array([False, True, True]), bins=4)
    assert binned.counts.tolist() == [1, 0, 1, 1]
    assert np.isnan(binned.accuracy[1])
    assert expected_calibration_error(binned) == pytest.approx((0 + 0.5 + 0) / 3)


def test_calibration_error_of_a_loop():
    confidence, right = predictions()
    total = 0.0
    for low in np.arange(10) / 10:
        mine = (confidence >= low) & (confidence < low + 0.1)
        if mine.any():
            total += mine.sum() / 500 * abs(right[mine].mean() - confidence[mine].mean())
    assert expected_calibration_error(reliability(confidence, right)) == pytest.approx(total)


def test_labels_match_scikit_learns():
    rng = np.random.default_rng(0)
    predicted, y = rng.random((50, 4)) < 0.3, rng.integers(0, 2, (50, 4))
    measured = label_metrics(predicted, y)
    assert measured.precision == pytest.approx(precision_score(y, predicted, average="micro"))
    assert measured.recall == pytest.approx(recall_score(y, predicted, average="micro"))
    assert measured.none == np.mean([not any(row) for row in predicted])
    assert measured.several == np.mean([sum(row) > 1 for row in predicted])


def test_precision_without_labels_is_undefined():
    measured = label_metrics(np.zeros((3, 2), bool), np.eye(2)[[0, 1, 0]])
    assert np.isnan(measured.precision)
    assert (measured.recall, measured.none, measured.several) == (0, 1, 0)
