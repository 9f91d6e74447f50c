"""Checks of the arguments that pipelines have in common; each raises `ValueError`."""

import numpy as np

__all__ = ["SEED_LIMIT", "check_batch_size", "check_choice", "check_lengths", "check_seed", "check_views"]

# A seed takes 30 bits, so that `seed + n * SEED_LIMIT` are further seeds, which no other seed's collide with.
SEED_LIMIT = 2**30


def check_batch_size(batch_size):
    """Raises `ValueError` unless a batch has at least one sample."""
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1. Received: batch_size={batch_size}")


def check_choice(argument, value, choice):
    """Raises `ValueError` unless `value` is `choice` or None; `argument` is its name in the error."""
    if value not in (choice, None):
        raise ValueError(f'`{argument}` must be "{choice}" or None. Received: {argument}={value!r}')


def check_lengths(images, labels, argument):
    """Raises `ValueError` unless `labels`, called `argument` in the error, hold one class id for each image."""
    shape = np.shape(labels)
    if len(shape) != 1 or len(images) != shape[0] or not len(images):
        raise ValueError(
            f"`{argument}` must hold one class id for each image. "
            f"Received: {len(images)} images, {argument} of shape {shape}"
        )


def check_seed(seed):
    """Raises `ValueError` unless `0 <= seed < SEED_LIMIT`."""
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"`seed` must be in [0, {SEED_LIMIT}). Received: seed={seed}")


def check_views(views):
    """Raises `ValueError` unless `views` is None or a number of views >= 1."""
    if views is not None and views < 1:
        raise ValueError(f"`views` must be >= 1, or None for a fresh view in each pass. Received: views={views}")
