"""Data sets that count their own epochs, so that each pass shows the next one."""

import tensorflow as tf

from keras_tkd.data.options import PREFETCHED_BATCHES, as_written, deterministic_options
from keras_tkd.utils.number_checks import check_whole, is_whole

__all__ = ["make_epoch_dataset"]


def make_epoch_dataset(make_batches, batch_count, training, initial_epoch, initial_step=0):
    """Makes a data set of batches, each pass over which is one epoch.

    Args:
        make_batches: function from the number of an epoch, a scalar int64 tensor, to the `tf.data.Dataset` of its
            batches, without the first `initial_step`.
        batch_count: number of batches in each epoch.
        training: True makes each pass the next epoch; False makes every pass the first epoch.
        initial_epoch: number of the first epoch.
        initial_step: number of batches that every pass leaves out at its beginning.

    Returns:
        `tf.data.Dataset` of known cardinality.

    Raises:
        ValueError: an `initial_step` that is not in [0, `batch_count`).
    """
    check_whole("initial_epoch", initial_epoch)
    # An epoch of no batches has no step either.
    if not is_whole(initial_step) or not 0 <= initial_step < max(batch_count, 1):
        raise ValueError(
            f"`initial_step` must be in [0, {batch_count}), the batches of an epoch. Received: "
            f"initial_step={initial_step!r}"
        )
    make_batches = as_written(make_batches)
    if training:
        # A variable, because each pass makes a new iterator: whatever an iterator counts begins again with the pass.
        counter = tf.Variable(initial_epoch - 1, dtype=tf.int64, trainable=False)
        # One function, and not a map before it: each pass prepares every function of a pipeline anew.
        make_next = as_written(lambda _: make_batches(counter.assign_add(1).read_value()))
        dataset = tf.data.Dataset.from_tensors(0).flat_map(make_next)
    else:
        dataset = make_batches(tf.constant(initial_epoch, tf.int64))
    # `flat_map` forgets how many elements there are, and so do windows; Keras's progress bar and schedules ask for it.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batch_count - initial_step))
    return dataset.prefetch(PREFETCHED_BATCHES).with_options(deterministic_options())
