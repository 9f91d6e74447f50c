"""Measures of a model's outputs. NumPy alone."""

import numpy as np


def accuracy(outputs, labels):
    """Share of rows of `outputs` whose largest entry is that of the label, 0..1."""
    return float(np.mean(np.argmax(outputs, axis=-1) == np.asarray(labels)))


def agreement(outputs, teacher_outputs):
    """Share of samples for which two models name the same class, 0..1."""
    return float(np.mean(np.argmax(outputs, axis=-1) == np.argmax(teacher_outputs, axis=-1)))


def standard_error(accuracy, samples):
    """Standard error of an accuracy measured on so many samples (binomial)."""
    return float(np.sqrt(accuracy * (1 - accuracy) / samples))


def at_chance(accuracy, labels):
    """Whether an accuracy cannot be told from always naming the commonest class.

    Args:
        accuracy: share of correct answers on `labels`, 0..1.
        labels: `(samples,)` class ids.

    Returns:
        True if `accuracy` is at most two standard errors above the commonest class's share.
    """
    share = np.unique(np.asarray(labels), return_counts=True)[1].max() / len(labels)
    return bool(accuracy <= share + 2 * standard_error(share, len(labels)))
