"""Checks of the arguments that pipelines have in common; each raises `ValueError`."""

import numpy as np

from keras_tkd.utils.labels import read_class_ids
from keras_tkd.utils.multi_hot import is_multi_hot, read_multi_hot
from keras_tkd.utils.number_checks import check_whole, is_whole

__all__ = [
    "SEED_LIMIT",
    "check_augmentation",
    "check_batch_size",
    "check_choice",
    "check_labels",
    "check_seed",
    "check_views",
]

# A seed takes 30 bits, so that `seed + n * SEED_LIMIT` are further seeds, which no other seed's collide with.
SEED_LIMIT = 2**30


def check_batch_size(batch_size):
    """Raises `ValueError` unless a batch has at least one sample."""
    check_whole("batch_size", batch_size, 1)


def check_choice(argument, value, choice):
    """Raises `ValueError` unless `value` is `choice` or None; `argument` is its name in the error."""
    if value not in (choice, None):
        raise ValueError(f'`{argument}` must be "{choice}" or None. Received: {argument}={value!r}')


def check_labels(images, labels, argument="labels", multi_hot=False):
    """Returns labels, called `argument` in errors, as class ids, one for each image; or, if allowed, as multi-hot rows.

    Args:
        images: as many as labels.
        labels: see `read_class_ids` and `read_multi_hot`.
        argument: their name in errors.
        multi_hot: whether they may be rows, of images of several classes: where nothing is drawn by classes.

    Raises:
        ValueError: labels that are neither; another number of them, or none.
    """
    if multi_hot and is_multi_hot(labels):
        rows = read_multi_hot(labels, argument)
        if len(images) != len(rows) or not len(images):
            raise ValueError(
                f"`{argument}` must hold one row for each image. Received: {len(images)} images, {argument} of shape "
                f"{rows.shape}"
            )
        return rows
    shape = np.shape(labels)
    if len(shape) != 1 and shape[1:] != (1,):
        raise ValueError(
            f"`{argument}` must be class ids, one for each of the {len(images)} images. Received: shape {shape}. "
            "One-hot rows become ids by `labels.argmax(axis=-1)`"
        )
    ids = read_class_ids(labels, argument)
    if len(images) != len(ids) or not len(images):
        raise ValueError(
            f"`{argument}` must hold one class id for each image. "
            f"Received: {len(images)} images, {argument} of shape {ids.shape}"
        )
    return ids


def check_seed(seed):
    """Raises `ValueError` unless a seed is a whole number, `0 <= seed < SEED_LIMIT`."""
    if not is_whole(seed) or not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"`seed` must be in [0, {SEED_LIMIT}), a whole number. Received: seed={seed!r}")


def check_views(views):
    """Raises `ValueError` unless `views` is None or a number of views >= 1."""
    if views is not None:
        check_whole("views", views, 1, ", or None for a fresh view in each pass")


def check_augmentation(augment):
    """Raises `ValueError` unless `augment` is None or can be called."""
    if augment is not None and not callable(augment):
        raise ValueError(
            "`augment` must be a function (images, seeds) -> images, or None. "
            f"Received: augment={augment!r}. Names are those of keras_tkd.data.AUGMENTATIONS"
        )
