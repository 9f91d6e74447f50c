"""Agreement of outputs that somebody else computed with the labels of the samples that they are said to be of."""

import math

import numpy as np

from keras_tkd.evaluation.measures import accuracy, at_chance
from keras_tkd.utils.labels import read_class_ids
from keras_tkd.utils.multi_hot import is_multi_hot, read_multi_hot

__all__ = ["check_agreement"]

_ROWS = (
    "The rows seem to be in another order than the samples (permuted), or of other samples. Give them in the samples' "
    "order, or with ids"
)
_LUCK = 1.96  # standard deviations, which luck exceeds once in 40 times


def check_agreement(outputs, labels, name="logits"):
    """Raises `ValueError` for outputs that agree with the labels no more than chance: rows in another order, for one.

    Few samples may agree by chance and still be a good teacher's: then a warning is printed.

    Args:
        outputs: `(views, samples, classes)` logits.
        labels: `(samples,)` class ids, or multi-hot rows `(samples, classes)`; of a single class they say nothing.
        name: what an error calls the outputs.
    """
    if is_multi_hot(labels):
        _check_rows(outputs, read_multi_hot(labels), name)
    else:
        _check_ids(outputs, read_class_ids(labels), name)


def _check_ids(outputs, labels, name):
    classes = outputs.shape[-1]
    if len(labels) and labels.max() >= classes:
        raise ValueError(
            f"`{name}` must have a column for each class of the labels. Received: {classes} columns, and label "
            f"{labels.max()}"
        )
    if len(np.unique(labels)) < 2:
        return
    for view, of_view in enumerate(outputs):
        named, right = of_view.argmax(-1), accuracy(of_view, labels)
        if not at_chance(right, labels, named):
            continue
        received = f"{right:.2%} right of {_describe_samples(outputs, view)}"
        if _may_know(right, labels):
            _warn(name, received)
            continue
        # If each class that is named stands for another one, it is the columns that are in another order.
        counts = np.zeros((classes, classes), int)
        np.add.at(counts, (named, labels), 1)
        commonest = np.bincount(labels).max() / len(labels)
        if counts.max(1).sum() / len(labels) > (1 + commonest) / 2:
            columns = counts.argmax(0)
            label = next(label for label in np.unique(labels) if columns[label] != label)
            why = (
                f"The columns seem to be in another order than the classes: most samples of class {label} have their "
                f"largest output in column {columns[label]}"
            )
        else:
            why = _ROWS
        raise ValueError(f"`{name}` must agree with the labels more than chance does. Received: {received}. {why}")


def _check_rows(outputs, labels, name):
    """Checks multi-hot rows: each class's samples are to be ranked above the others, over all classes at once."""
    samples, classes = labels.shape
    if outputs.shape[-1] != classes:
        raise ValueError(
            f"`{name}` must have a column for each class of the labels. Received: {outputs.shape[-1]} columns, and "
            f"labels of {classes} classes"
        )
    counts = np.count_nonzero(labels > 0.5, axis=0)
    tested = np.flatnonzero((0 < counts) & (counts < samples))
    if not len(tested):
        return
    import scipy.stats

    # From the mean of each class: a constant adds nothing to a product with them.
    has = (labels > 0.5)[:, tested] - counts[tested] / samples
    pairs = counts[tested] * (samples - counts[tested])
    # The largest share by luck, of all columns and classes, as of independent ones (Bonferroni).
    luck = scipy.stats.norm.isf(0.025 / len(tested) ** 2) * np.sqrt((samples + 1) / (3 * pairs))
    for view, of_view in enumerate(outputs):
        ranks = scipy.stats.rankdata(of_view[:, tested], axis=0) - (samples + 1) / 2
        # Mann and Whitney's rank sums above their means: of each column (rows) for the samples of each class. Of 1, a
        # column ranks all of a class's samples above all others; of 0 as many above as below.
        sums = ranks.T @ has
        shares = 2 * sums / pairs
        _check_columns(shares, luck, tested, name)
        deviation = _deviate_by_order(ranks, has)
        total, best = np.trace(sums), pairs.sum() / 2
        if total > _LUCK * deviation:
            continue
        received = (
            f"a mean of {np.average(np.diagonal(shares) + 1, weights=pairs) / 2:.2%} of the pairs of images with and "
            f"without a class ranked right, of {_describe_samples(outputs, view)}"
        )
        # A teacher that knows half of it would do no better, once in 40 times.
        if best / 2 < 2 * _LUCK * deviation:
            _warn(name, received)
            continue
        raise ValueError(f"`{name}` must agree with the labels more than chance does. Received: {received}. {_ROWS}")


def _deviate_by_order(ranks, has):
    """Returns the standard deviation of `sum(ranks * has)` over all orders of the rows of `ranks`.

    Classes that go together count as such. Source: Hoeffding, "A Combinatorial Central Limit Theorem", 1951.

    Args:
        ranks, has: `(samples, classes)`, each column with a mean of 0.
    """
    return math.sqrt(np.sum((ranks.T @ ranks) * (has.T @ has)) / (len(has) - 1))


def _check_columns(shares, luck, classes, name):
    """Raises `ValueError` where most classes are better known to another class's column than to their own.

    Classes that go together, as cars and streets, would let columns in another order agree with the labels, too.

    Args:
        shares: `(columns, classes)`, what each column knows of each class, -1..1.
        luck: `(classes,)`, what a column would seem to know by luck.
        classes: indices of both.
        name: what an error calls the outputs.
    """
    best = shares.argmax(0)
    most, own = shares.max(0), np.diagonal(shares)
    wrong = (most > luck) & (own < most / 2)
    if np.mean(wrong) > 0.5:
        first = int(np.argmax(wrong))
        raise ValueError(
            f"`{name}` must agree with the labels more than chance does. Received: columns that seem to be in another "
            f"order than the classes: samples of class {classes[first]} are ranked first by column "
            f"{classes[best[first]]}, and so with {np.sum(wrong)} of {len(wrong)} classes"
        )


def _describe_samples(outputs, view):
    return f"{outputs.shape[1]:,} samples{f' in view {view}' * (len(outputs) > 1)}"


def _warn(name, received):
    print(
        f"Warning: `{name}` must agree with the labels more than chance does, which so few cannot show. "
        f"Received: {received}. See that the rows are in the samples' order",
        flush=True,
    )


def _may_know(right, labels):
    """Returns whether an accuracy is no surprise for a teacher that knows something, by an exact binomial test.

    Its accuracy is halfway between 1 and that of always naming the commonest class. Where more than 2.5 % of such
    teachers are right as seldom on so many samples, these do not tell it from one at chance.

    Args:
        right: share of right answers.
        labels: `(samples,)` class ids, of several classes.
    """
    samples, known = len(labels), (1 + np.bincount(labels).max() / len(labels)) / 2
    # By logarithms, for the factors of one term may be beyond any float.
    terms = (
        math.lgamma(samples + 1)
        - math.lgamma(count + 1)
        - math.lgamma(samples - count + 1)
        + count * math.log(known)
        + (samples - count) * math.log1p(-known)
        for count in range(round(right * samples) + 1)
    )
    return math.fsum(map(math.exp, terms)) > 0.025
