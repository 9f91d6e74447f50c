"""Calibration: by hand, and against scikit-learn."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from keras_tkd.evaluation.calibration import compute_confidences, expected_calibration_error, reliability


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    confidences = generator.uniform(size=500)
    # Among them the ends of ranges.
    confidences[:5] = 0.0, 0.2, 0.4, 0.6, 1.0
    return confidences, generator.uniform(size=500) < confidences**2


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_reliability_is_scikit_learns(predictions, bins):
    confidences, right = predictions
    ranges = reliability(confidences, right, bins)
    accuracies, means = calibration_curve(right, confidences, n_bins=bins)
    assert [each["accuracy"] for each in ranges] == pytest.approx(accuracies)
    assert [each["confidence"] for each in ranges] == pytest.approx(means)
    assert sum(each["count"] for each in ranges) == 500


def test_errors_by_hand():
    """Sure at 0.95 and right in 3 of 4; at 0.55 right in 1 of 2: 4/6 of 0.2 and 2/6 of 0.05."""
    confidences, right = [0.95] * 4 + [0.55] * 2, [1, 1, 1, 0, 1, 0]
    assert expected_calibration_error(confidences, right, 10) == pytest.approx(4 / 6 * 0.2 + 2 / 6 * 0.05)
    # One range over all: 3.8 + 1.1 of 6 on average, and 4 of 6 right.
    assert expected_calibration_error(confidences, right, 1) == pytest.approx(abs(4.9 / 6 - 4 / 6))
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0


def test_confidence_is_the_largest_softmax_probability():
    logits = np.random.default_rng(0).normal(size=(20, 7)).astype("float32") * 5
    assert compute_confidences(logits) == pytest.approx(softmax(logits, axis=-1).max(axis=-1), rel=1e-6)
    # Without overflow.
    assert compute_confidences([[1e4, 0.0], [3.0, 3.0]]).tolist() == [1.0, 0.5]
