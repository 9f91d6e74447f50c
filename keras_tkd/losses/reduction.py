"""Keras's reduction of a loss, over values that are computed already."""

import keras

from keras_tkd.utils.keras_graph import copy_mask

__all__ = ["reduce_values"]


class _ReadyValues(keras.losses.Loss):
    """Keras's masks, sample weights and reduction, over values that are computed already."""

    def call(self, y_true, y_pred):
        return y_pred


def reduce_values(loss, values, y_pred, sample_weight=None, valid=None):
    """Reduces values per sample as Keras reduces those of a loss.

    Keras casts the inputs of a loss, calls it, and reduces its values in one method. Losses that must see their inputs
    uncast compute the values first, and have Keras do the rest.

    Args:
        loss: the `keras.losses.Loss` whose name, reduction and dtype count.
        values: `(batch,)`.
        y_pred: what the loss was called with, whose mask counts, where a layer of Keras left one on it.
        sample_weight: `(batch,)`, `(batch, 1)` or None.
        valid: bool `(batch,)`, which values a mean is taken of; None for all.

    Returns:
        A scalar, or `(batch,)` without a reduction.
    """
    # A mask, in Keras, is what says so: the sum is then divided by the number of values that it leaves.
    values = copy_mask(y_pred, keras.ops.convert_to_tensor(values, dtype=loss.dtype), valid)
    return _ReadyValues(loss.name, loss.reduction, loss.dtype)(values, values, sample_weight)
