"""Random numbers of a view: each is a function of the view's seed and of what it is drawn for."""

import tensorflow as tf

from keras_tkd.data.permutation import permute

__all__ = [
    "COLOR_JITTER",
    "CROP",
    "CUTOUT",
    "FLIP",
    "MIXING",
    "RAND_AUGMENT",
    "RESIZED_CROP",
    "SEED_COUNT",
    "draw_choice",
    "draw_fraction",
]

SEED_COUNT = 2**31 - 1

# The first of the numbers by which an operation draws from a seed: no two share one, so that they are independent in
# whatever order they act. New ones go to the end, or the views of every seed change.
CROP, FLIP, RESIZED_CROP, COLOR_JITTER, CUTOUT, MIXING, RAND_AUGMENT = 0, 2, 3, 7, 10, 12, 32


def draw_choice(seeds, number, choices):
    """Makes draw number 0, 1, ... from each seed, uniform in [0, choices).

    Args:
        seeds: int64 `(batch,)`, in [0, 2^31 - 1).
        number: int, which of a seed's draws.
        choices: int, or int64 `(batch,)`, >= 1 and far below 2^31.

    Returns:
        int64 `(batch,)`.
    """
    return permute(seeds, (0, number, 1), SEED_COUNT) % choices


def draw_fraction(seeds, number):
    """Makes draw number 0, 1, ... from each seed, float64 `(batch,)`, uniform in [0, 1)."""
    return tf.cast(permute(seeds, (0, number, 1), SEED_COUNT), tf.float64) / SEED_COUNT
