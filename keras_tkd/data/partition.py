"""Divisions of samples and of classes into splits, each decided by a seed."""

import numpy as np

__all__ = ["draw_open_set_classes", "stratified_split"]


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
        labels: `(n,)`, integers.
        fraction: the share to take, between 0 and 1; rounded to whole samples class by class.
        seed: of the choice.
        class_names: a name per label, for the error.
        unseen: labels of an open set, whose samples are all taken; the other classes are divided as without it.

    Returns:
        The indices that are kept and those that are taken, two ascending arrays.

    Raises:
        ValueError: if a class has a single sample.
    """
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
