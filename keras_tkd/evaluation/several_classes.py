"""Measures of the outputs for images of several classes, by NumPy alone: each class is a yes or no."""

import numpy as np

from keras_tkd.utils.multi_hot import read_multi_hot

__all__ = [
    "average_precisions",
    "binary_accuracy",
    "binary_agreement",
    "exact_match",
    "f1_scores",
    "ranks_at_chance",
]

_LUCK = 0.025  # of a model that guesses, at the most, is told to know something


def binary_accuracy(outputs, labels):
    """Returns the share of all yes and no, of each class for each sample, that are right, 0..1.

    Args:
        outputs: `(samples, classes)` logits; above 0 is a yes.
        labels: `(samples, classes)`, multi-hot.
    """
    yes, has = _check(outputs, labels)
    return float(np.mean(yes == has))


def binary_agreement(outputs, teacher_outputs):
    """Returns the share of all yes and no, of each class for each sample, in which two models agree, 0..1."""
    return float(np.mean((np.asarray(outputs) > 0) == (np.asarray(teacher_outputs) > 0)))


def exact_match(outputs, labels):
    """Returns the share of samples of which every class is answered right, 0..1: scikit-learn's subset accuracy.

    Args:
        outputs, labels: as in `binary_accuracy`.
    """
    yes, has = _check(outputs, labels)
    return float(np.mean((yes == has).all(axis=-1)))


def f1_scores(outputs, labels):
    """Returns the F1 score of each class, `2 TP / (2 TP + FP + FN)`, 0..1; NaN where there is neither label nor yes.

    Args:
        outputs, labels: as in `binary_accuracy`.

    Returns:
        float64 `(classes,)`.

    Example: of two samples with the class, one gets a yes, and so does one without it: 2 / (2 + 1 + 1).

    >>> f1_scores([[1.0], [-1.0], [1.0]] * np.ones(2), [[1, 1], [1, 1], [0, 0]]).tolist()
    [0.5, 0.5]
    """
    yes, has = _check(outputs, labels)
    right = np.sum(yes & has, axis=0)
    answers = np.sum(yes, axis=0) + np.sum(has, axis=0)
    return np.divide(2 * right, answers, out=np.full(len(answers), np.nan), where=answers > 0)


def average_precisions(outputs, labels):
    """Returns the average precision of each class, 0..1: the mean over its samples of the precision at their rank.

        AP = sum_k (recall_k - recall_(k - 1)) precision_k

    over the thresholds k, from the largest output down; samples of equal outputs come in together. NaN of a class
    without samples.

    Args:
        outputs: `(samples, classes)`, logits or anything else that ranks samples.
        labels: `(samples, classes)`, multi-hot.

    Returns:
        float64 `(classes,)`.

    Source: scikit-learn's `average_precision_score`; its mean over the classes is the mAP of the literature.

    Example: the two samples of the class are the first and the third of three: (1 / 1 + 2 / 3) / 2.

    >>> average_precisions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [[1, 0], [0, 0], [1, 0]]).round(4).tolist()
    [0.8333, nan]
    """
    _, has = _check(outputs, labels)
    return np.array([_average_precision(scores, own) for scores, own in zip(np.transpose(outputs), has.T, strict=True)])


def ranks_at_chance(outputs, labels):
    """Returns whether a model ranks no class's samples above the others by more than luck.

    Of each class Mann and Whitney's rank sum, with ties, against what guessing gives: at most one model in 40 that does
    not look at the images reaches what is asked of the best of its classes.

    Args:
        outputs, labels: as in `average_precisions`.

    Source: Mann & Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other",
    1947, in its normal approximation; of several classes by Bonferroni's bound.
    """
    import scipy.stats

    _, has = _check(outputs, labels)
    samples, tested = len(has), (0 < has.sum(axis=0)) & (has.sum(axis=0) < len(has))
    bound = scipy.stats.norm.isf(_LUCK / max(np.count_nonzero(tested), 1))
    for scores, own in zip(np.transpose(outputs)[tested], has.T[tested], strict=True):
        ranks = scipy.stats.rankdata(scores)
        positives = np.count_nonzero(own)
        # Of ranks without ties this is (samples + 1) / 12 times the product of both numbers.
        variance = positives * (samples - positives) * np.var(ranks, ddof=1) / samples
        excess = np.sum(ranks[own]) - positives * (samples + 1) / 2
        if variance and excess > bound * np.sqrt(variance):
            return False
    return True


def _average_precision(scores, has):
    if not has.any():
        return np.nan
    order = np.argsort(-scores, kind="stable")
    scores, has = scores[order], has[order]
    # The last of each run of equal scores.
    ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))
    right = np.cumsum(has)[ends]
    return float(np.sum(np.diff(right, prepend=0) * right / (ends + 1)) / right[-1])


def _check(outputs, labels):
    """Returns the yes of outputs and of labels, two bool arrays of equal shape."""
    outputs, labels = np.asarray(outputs), read_multi_hot(labels)
    if outputs.shape != labels.shape:
        raise ValueError(
            "`labels` must be a multi-hot row for each row of `outputs`. Received: outputs of shape "
            f"{outputs.shape}, labels of shape {labels.shape}"
        )
    return outputs > 0, labels > 0.5
