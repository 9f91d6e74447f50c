"""Measures of a model's outputs, by NumPy alone."""

import numpy as np

__all__ = ["accuracy", "agreement", "at_chance", "standard_error"]


def accuracy(outputs, labels):
    """Returns the share of rows of `outputs` whose largest entry is that of the label, 0..1."""
    return float(np.mean(np.argmax(outputs, axis=-1) == np.asarray(labels)))


def agreement(outputs, teacher_outputs):
    """Returns the share of samples for which two models predict the same class, 0..1."""
    return float(np.mean(np.argmax(outputs, axis=-1) == np.argmax(teacher_outputs, axis=-1)))


def standard_error(accuracy, samples):
    """Returns the binomial standard error of an accuracy that was measured on a number of samples."""
    return float(np.sqrt(accuracy * (1 - accuracy) / samples))


def at_chance(accuracy, labels):
    """Returns whether an accuracy is no better than that of always predicting the commonest class.

    Args:
        accuracy: share of correct answers on `labels`, 0..1.
        labels: `(samples,)` class ids.

    Returns:
        True if `accuracy` is at most two standard errors above the commonest class's share.
    """
    # Two standard errors of the guess, not of the accuracy: the question is what guessing could have reached by luck.
    share = np.unique(np.asarray(labels), return_counts=True)[1].max() / len(labels)
    return bool(accuracy <= share + 2 * standard_error(share, len(labels)))
