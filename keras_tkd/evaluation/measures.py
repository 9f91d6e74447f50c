"""Measures of a model's outputs, by NumPy alone."""

import numpy as np

from keras_tkd.utils.labels import read_class_ids

__all__ = [
    "accuracy",
    "agreement",
    "at_chance",
    "balanced_accuracy",
    "class_accuracies",
    "confusion_matrix",
    "is_right",
    "standard_error",
]

_PAIRINGS = 999  # random pairings of predictions with labels that a test draws


def accuracy(outputs, labels):
    """Returns the share of rows of `outputs` whose largest entry is that of the label, 0..1.

    Args:
        outputs: `(samples, classes)`.
        labels: `(samples,)` class ids, whole numbers.

    Raises:
        ValueError: labels that are no class ids, or not as many as outputs.
    """
    predicted, labels = np.argmax(outputs, axis=-1), read_class_ids(labels)
    if predicted.shape != labels.shape:
        raise ValueError(
            "`labels` must be a class id for each row of `outputs`. Received: outputs of shape "
            f"{np.shape(outputs)}, labels of shape {labels.shape}"
        )
    return float(np.mean(predicted == labels))


def is_right(predicted, labels):
    """Returns which samples are answered right, bool `(samples,)`: of multi-hot rows those with all classes right.

    Args:
        predicted, labels: `(samples,)` class ids, or `(samples, classes)` multi-hot rows, both alike.
    """
    same = np.asarray(predicted) == np.asarray(labels)
    return same if same.ndim == 1 else same.all(axis=-1)


def agreement(outputs, teacher_outputs):
    """Returns the share of samples for which two models predict the same class, 0..1."""
    return float(np.mean(np.argmax(outputs, axis=-1) == np.argmax(teacher_outputs, axis=-1)))


def standard_error(accuracy, samples):
    """Returns the binomial standard error of an accuracy that was measured on a number of samples."""
    return float(np.sqrt(accuracy * (1 - accuracy) / samples))


def confusion_matrix(predicted, labels, num_classes):
    """Counts how often each class is taken for each, int64 `(num_classes, num_classes)`: rows are the labels.

    Args:
        predicted: `(samples,)`, the classes that a model names.
        labels: `(samples,)` class ids.
        num_classes: number of classes; both hold numbers below it.

    Raises:
        ValueError: labels that are no class ids, or not as many as predictions; a class that there is not.

    Example: of two images of class 0, one is taken for class 1.

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    predicted, labels = read_class_ids(predicted, "predicted"), read_class_ids(labels)
    if predicted.shape != labels.shape:
        raise ValueError(
            "`labels` must be a class id for each prediction. Received: predictions of shape "
            f"{predicted.shape}, labels of shape {labels.shape}"
        )
    both = np.concatenate([predicted, labels])
    if both.size and not 0 <= both.min() <= both.max() < num_classes:
        raise ValueError(
            f"Classes must be 0 to {num_classes - 1}. Received: classes {both.min()} to {both.max()}, "
            f"num_classes={num_classes}"
        )
    # A pair of classes is one number, so that all are counted at once.
    pairs = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_accuracies(confusion):
    """Returns the share of each class's samples that are given their class (its recall), NaN of a class without any.

    Args:
        confusion: `(classes, classes)`, as from `confusion_matrix`.

    Returns:
        float64 `(classes,)`.
    """
    confusion = np.asarray(confusion)
    samples = confusion.sum(axis=1)
    shares = np.full(len(confusion), np.nan)
    return np.divide(np.diagonal(confusion), samples, out=shares, where=samples > 0)


def balanced_accuracy(confusion):
    """Returns the mean of the accuracies of the classes that have samples, 0..1, however many each has.

    Args:
        confusion: `(classes, classes)`, as from `confusion_matrix`, of one sample or more.

    Source: Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010; scikit-learn's
    `balanced_accuracy_score`.

    Example: the classes have accuracies of 0.5 and 1.

    >>> balanced_accuracy([[1, 1], [0, 1]])
    0.75
    """
    return float(np.nanmean(class_accuracies(confusion)))


def at_chance(accuracy, labels, predicted=None):
    """Returns whether a model cannot be told from one that guesses without looking at the images.

    By its accuracy: such a model names the commonest class, or by luck a little more, up to two standard errors of that
    class's share. Where this is the whole set or more, as with four images of two classes, the set is too small for
    luck to be told from knowledge, and an accuracy above the commonest class's share speaks for the model.

    By its predictions, where they are given: an exact test of its balanced accuracy, the mean over the classes of their
    recalls, against guesses that name each class as often as it does, the commonest alone for one. Where no more than
    2.5 % of random pairings of its predictions with the labels reach as high, it looks at the images, also if a model
    that always names the commonest class is right more often.

    Args:
        accuracy: share of correct answers on `labels`, 0..1.
        labels: `(samples,)` class ids.
        predicted: `(samples,)`, the classes that the model names.

    Returns:
        True if neither the accuracy nor, where they are known, the recalls say that the model knows something.

    Example: of 45 images of one class and 5 of another, a model has 49 right.

    >>> labels = np.repeat([0, 1], [45, 5])
    >>> at_chance(0.98, labels)     # 0.98 <= 0.9 + 2 * sqrt(0.9 * 0.1 / 50) = 0.985
    True
    >>> at_chance(0.98, labels, np.repeat([0, 1], [46, 4]))     # recalls of 1 and 0.8: five pairings in 230,300
    False
    """
    labels = read_class_ids(labels)
    classes, counts = np.unique(labels, return_counts=True)
    samples, share = len(labels), counts.max() / len(labels)
    # Two standard errors of the guess, not of the accuracy: the question is what guessing could have reached by luck.
    luck = share + 2 * standard_error(share, samples)
    # Half a sample more, because accuracies of Keras are float32.
    knows = accuracy > luck or (luck >= 1 and accuracy > share + 0.5 / samples)
    return bool(not knows and (predicted is None or _recalls_at_chance(np.asarray(predicted), labels, classes, counts)))


def _recalls_at_chance(predicted, labels, classes, counts):
    """Returns whether more than 2.5 % of random pairings of predictions and labels have recalls as high on average."""
    # A right answer counts as much as it adds to its class's recall.
    shares = 1 / counts[np.searchsorted(classes, labels)]
    # Sums of the same shares may differ by rounding.
    reached = np.sum(shares[predicted == labels]) - 1e-9
    generator = np.random.default_rng(0)
    pairings = (generator.permutation(predicted) == labels for _ in range(_PAIRINGS))
    as_high = sum(np.sum(shares[right]) >= reached for right in pairings)
    # The pairing that was observed is one of them: so the test holds its level exactly, however few are drawn.
    return (1 + as_high) / (1 + _PAIRINGS) > 0.025
