"""Divisions of samples and of classes into splits, each decided by a seed."""

import numpy as np

from keras_tkd.utils.multi_hot import is_multi_hot

__all__ = ["draw_open_set_classes", "group_split", "stratified_split"]


def draw_open_set_classes(class_names, fraction, seed):
    """Draws the classes of an open set, whose samples no model is trained on.

    Args:
        class_names: names of all classes.
        fraction: the share to take, `0 < fraction <= 1`, rounded to whole classes, so that at least two are taken
            and at least two are left; 1 takes all.
        seed: of the choice; the same seed takes the same classes.

    Returns:
        Ids of the classes, ascending.

    Raises:
        ValueError: fewer than four classes, if not all are taken.
    """
    count = len(class_names)
    if fraction == 1:
        return np.arange(count)
    if count < 4:
        raise ValueError(
            "An open set needs at least 4 classes: 2 to train on, and 2 that are not seen. "
            f"Received: {count} classes, {', '.join(class_names)}"
        )
    taken = min(max(round(fraction * count), 2), count - 2)
    return np.sort(np.random.default_rng(seed).permutation(count)[:taken])


def stratified_split(labels, fraction, seed, class_names, unseen=()):
    """Divides samples so that each class gives the same share, but keeps and gives at least one sample.

    Args:
        labels: `(n,)`, integers; or multi-hot rows `(n, classes)`, see below.
        fraction: the share to take, between 0 and 1; rounded to whole samples class by class.
        seed: of the choice.
        class_names: a name per label, for the error.
        unseen: labels of an open set, whose samples are all taken; the other classes are divided as without it.

    Returns:
        The indices that are kept and those that are taken, two ascending arrays.

    Raises:
        ValueError: if a class has a single sample, or in multi-hot rows none that could be on both sides.

    Samples of several classes are divided by the rarest class first, and what that left by each other class, so that
    each gives about the same share; those without a class come last. After Sechidis et al., "On the Stratification of
    Multi-Label Data", ECML 2011, who look for the rarest class anew at each sample.
    """
    if is_multi_hot(labels):
        return _split_multi_hot(labels, fraction, seed, class_names)
    generator = np.random.default_rng(seed)
    is_taken = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        # Drawn for classes of the open set too, so that the other classes' draws are those of a call without it.
        members = generator.permutation(np.flatnonzero(labels == label))
        if label in unseen:
            is_taken[members] = True
            continue
        if len(members) < 2:
            raise ValueError(
                "A class must have at least 2 images to be split. "
                f"Received: 1 image of class `{class_names[label]}`. Add images, or leave the class out."
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        is_taken[members[:count]] = True
    return np.flatnonzero(~is_taken), np.flatnonzero(is_taken)


def _split_multi_hot(rows, fraction, seed, class_names):
    generator = np.random.default_rng(seed)
    has = np.asarray(rows) > 0
    counts = has.sum(axis=0)
    is_taken, is_free = np.zeros(len(has), bool), np.ones(len(has), bool)
    for label in np.argsort(counts, kind="stable"):
        members = has[:, label]
        # One at least is kept, and one taken, of those that rarer classes have not divided yet.
        wanted = min(max(round(fraction * counts[label]), 1), counts[label] - 1) - is_taken[members].sum()
        free = generator.permutation(np.flatnonzero(members & is_free))
        is_taken[free[: max(wanted, 0)]] = True
        is_free[members] = False
    free = generator.permutation(np.flatnonzero(is_free))
    is_taken[free[: round(fraction * len(free))]] = True
    for label, count in enumerate(counts):
        if has[:, label][is_taken].sum() in (0, count):
            raise ValueError(
                "A class must have images on both sides of a split. Received: class "
                f"'{class_names[label]}' with {count}, all on one side, where their other classes put them. Add images "
                "of it, leave the class out, or say in a column `split` which files are for what"
            )
    return np.flatnonzero(~is_taken), np.flatnonzero(is_taken)


def group_split(labels, groups, fraction, seed, class_names, unseen=()):
    """Divides samples so that each class gives about the same share, and no group stands on both sides.

    Groups are gone through in an order drawn from the seed. One is taken where that brings the shares of its classes
    nearer to `fraction`, and leaves each of its classes a sample. For a class that has given nothing at the end, the
    smallest of its groups is taken that leaves each class a sample.

    Args:
        labels: `(n,)`, integers, or multi-hot rows `(n, classes)`.
        groups: `(n,)`, the group of each sample, which may have samples of several classes.
        fraction: the share of each class to take, between 0 and 1.
        seed: of the choice.
        class_names: a name per label, for the error.
        unseen: labels of an open set, whose samples are all taken, whatever their groups; the other classes are divided
            without them.

    Returns:
        The indices that are kept and those that are taken, two ascending arrays.

    Raises:
        ValueError: a class that cannot be on both sides.
    """
    is_unseen = np.zeros(len(labels), bool) if is_multi_hot(labels) else np.isin(labels, list(unseen))
    seen = np.flatnonzero(~is_unseen)
    names, members = np.unique(np.asarray(groups)[seen], return_inverse=True)
    # The samples of each class (columns) in each group (rows).
    counts = np.zeros((len(names), len(class_names)), int)
    if is_multi_hot(labels):
        np.add.at(counts, members, np.asarray(labels)[seen] > 0)
    else:
        np.add.at(counts, (members, np.asarray(labels)[seen]), 1)
    totals = counts.sum(0)
    # Each class counts as much as another, whatever its size.
    weights = 1 / np.maximum(totals, 1) ** 2
    taken, is_taken = np.zeros(len(class_names), int), np.zeros(len(names), bool)

    def can_take(group):
        return not is_taken[group] and ((taken + counts[group] < totals) | (counts[group] == 0)).all()

    order = np.random.default_rng(seed).permutation(len(names))
    for group in order:
        error = weights * (taken - fraction * totals) ** 2
        error_if_taken = weights * (taken + counts[group] - fraction * totals) ** 2
        if can_take(group) and error_if_taken.sum() < error.sum():
            taken, is_taken[group] = taken + counts[group], True
    for label in np.flatnonzero(totals):
        if not taken[label]:
            choice = [group for group in order if counts[group, label] and can_take(group)]
            if not choice:
                raise ValueError(
                    "A class must have images of at least 2 groups, one of which can be taken for testing. Received: "
                    f"class `{class_names[label]}`, number of images: {totals[label]}, of groups: "
                    f"{np.count_nonzero(counts[:, label])}. Add images of another group, or leave the class out"
                )
            group = min(choice, key=lambda group: counts[group].sum())
            taken, is_taken[group] = taken + counts[group], True
    is_test = is_unseen.copy()
    is_test[seen] = is_taken[members]
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
