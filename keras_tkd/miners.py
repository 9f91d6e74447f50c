"""Who is whose negative inside a batch.

A miner is a pure function of labels and a seed. It returns `(index, valid)`: `index[i]` is the row that serves row `i`
as its negative, and `valid[i]` says whether there is one at all; where there is none, `index[i]` is meaningless.
"""

import tensorflow as tf


def random_other_class(labels, seed):
    """A negative for every row, uniform over the rows of the batch that bear another label.

    Args:
        labels: `(batch,)`, any numeric dtype; rows of equal labels are of one class.
        seed: integer tensor of shape `(2,)`. Equal seeds give equal negatives: nothing else is random here.

    Returns:
        `index`: int32, `(batch,)`; `valid`: bool, `(batch,)`, False for a row whose whole batch is of its class.
    """
    # In the order of the labels each class is one run; a place outside the row's own run is one whole random number.
    # (Whole numbers are the same with and without XLA; random floating-point numbers are not.)
    order = tf.argsort(labels, stable=True)
    ordered = tf.gather(labels, order)
    start = tf.searchsorted(ordered, labels, side="left")
    count = tf.searchsorted(ordered, labels, side="right") - start
    others = tf.size(labels) - count
    bits = tf.random.stateless_uniform(
        tf.shape(labels), tf.cast(seed, tf.int32), minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    place = tf.cast(tf.cast(bits, tf.int64) % tf.cast(tf.maximum(others, 1), tf.int64), tf.int32)
    place = tf.where(place < start, place, place + count) % tf.size(labels)
    return tf.gather(order, place), others > 0


MINERS = {"random": random_other_class}
