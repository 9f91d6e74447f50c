"""Calibration of a classifier: whether it is right as often as it is confident. By NumPy alone."""

import numpy as np

__all__ = ["compute_confidences", "expected_calibration_error", "reliability"]

_BINS = 15  # as in the paper


def compute_confidences(logits):
    """Returns the largest softmax probability of each row of logits, float32 `(samples,)`."""
    logits = np.asarray(logits, "float64")
    # That of the largest logit: its own term of the sum is 1.
    return (1 / np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)).astype("float32")


def reliability(confidences, right, bins=_BINS):
    """Measures the accuracy of the predictions of about the same confidence.

    Args:
        confidences: `(samples,)`, the probability that the model gives the class that it names, 0..1.
        right: `(samples,)`, whether that is the label.
        bins: number of ranges of equal width that 0..1 is cut into; each holds its upper end.

    Returns:
        list of dicts `{"confidence", "accuracy", "count"}`, means and number of a range, without those that are empty.

    Example:

    >>> reliability([0.9, 0.9, 0.2], [True, False, False], bins=2)
    [{'confidence': 0.2, 'accuracy': 0.0, 'count': 1}, {'confidence': 0.9, 'accuracy': 0.5, 'count': 2}]
    """
    confidences, right = np.asarray(confidences, "float64"), np.asarray(right, "float64")
    places = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "confidence": float(confidences[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
            "count": int((places == place).sum()),
        }
        for place in np.unique(places)
    ]


def expected_calibration_error(confidences, right, bins=_BINS):
    """Returns the mean distance of confidence and accuracy over ranges of confidence, weighted by samples, 0..1.

    Arguments are those of `reliability`.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, whose number of ranges is the default.

    Example: a third of `|0.2 - 0|` and two thirds of `|0.9 - 0.5|`.

    >>> round(expected_calibration_error([0.9, 0.9, 0.2], [True, False, False], bins=2), 4)
    0.3333
    """
    ranges = reliability(confidences, right, bins)
    error = sum(each["count"] * abs(each["accuracy"] - each["confidence"]) for each in ranges)
    return error / len(np.asarray(confidences))
