"""Weights of several teachers: one for each teacher, or one for each teacher and sample."""

import numpy as np
import tensorflow as tf

from keras_tkd.utils.choices import WEIGHTINGS
from keras_tkd.utils.hyperparameters import check_number

__all__ = ["check_teacher_weights", "compute_shares", "is_per_sample"]


def check_teacher_weights(weights, count: int):
    """Returns the weights as they are kept: None, a tuple of numbers, or the name of a weighting.

    Args:
        weights: `TeacherEnsemble`'s `teacher_weights`.
        count: number of teachers.

    Raises:
        ValueError: weights of any other kind or number.
    """
    if weights is None or (isinstance(weights, str) and weights in WEIGHTINGS):
        return weights
    if isinstance(weights, (list, tuple, np.ndarray)):
        for weight in weights:
            check_number("teacher_weights", weight)
        if len(weights) == count and sum(weights) > 0:
            return tuple(float(weight) for weight in weights)
    raise ValueError(
        f"`teacher_weights` must be None, {count} numbers >= 0 that are not all 0, one for each teacher, or one of "
        f"{', '.join(WEIGHTINGS)}. Received: teacher_weights={weights!r}"
    )


def is_per_sample(weights, count: int) -> bool:
    """Returns whether each sample has weights of its own; a single teacher has weight 1 for all."""
    return isinstance(weights, str) and count > 1


def compute_shares(weights, logits: list[tf.Tensor], labels=None):
    """Computes the teachers' weights w_k, which sum to 1: `(teachers,)`, or `(teachers, batch)` where samples differ.

    Formulas and sources: see `TeacherEnsemble`.

    Args:
        weights: as `check_teacher_weights` returns them.
        logits: list of each teacher's logits, `(batch, classes)`.
        labels: `(batch,)` class ids, which `"confidence"` reads; without them its weights are equal.
    """
    count = len(logits)
    equal = tf.fill([count], 1 / count)
    if isinstance(weights, tuple):
        return tf.constant([weight / sum(weights) for weight in weights], tf.float32)
    if not is_per_sample(weights, count) or (weights == "confidence" and labels is None):
        return equal
    # In float32 whatever the teachers compute in, or weights would not sum to 1.
    logits = [tf.cast(z, tf.float32) for z in logits]
    if weights == "confidence":
        labels = tf.cast(labels, tf.int64)
        errors = [tf.nn.sparse_softmax_cross_entropy_with_logits(labels, z) for z in logits]
        doubt = tf.nn.softmax(tf.stack(errors), axis=0)
    else:
        entropies = tf.stack([-tf.reduce_sum(tf.nn.softmax(z) * tf.nn.log_softmax(z), -1) for z in logits])
        total = tf.reduce_sum(entropies, axis=0)
        # No teacher in doubt: equal weights, not 0 / 0.
        doubt = tf.where(total > 0, tf.math.divide_no_nan(entropies, total), equal[:, None])
    return (1 - doubt) / (count - 1)
