"""Which samples stand together in a batch: pure functions of (seed, epoch, step), on indices alone."""

import numpy as np
import tensorflow as tf


def epoch_order(count, seed, epoch):
    """The order in which an epoch shows the samples.

    Args:
        count: number of samples.
        seed, epoch: integers or scalar tensors; they alone decide.

    Returns:
        int64 `(count,)`: every sample exactly once, each order equally likely.
    """
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), key, alg="philox")


class NegativeSampler:
    """Draws, for each anchor, a sample of another class, uniform over all of them.

    The samples are kept in an order in which each class is one run. A draw from the n - n_c places outside the
    anchor's run is then one uniform number, moved past the run where it would fall into it or behind it.

    Args:
        labels: `(samples,)` class ids of any values, of two classes at least.
    """

    def __init__(self, labels):
        classes, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise ValueError(f"Triplets need samples of at least two classes. Received: {len(classes)}: {classes}")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self._order = tf.constant(np.argsort(inverse, kind="stable"), tf.int64)
        self._start = tf.constant(starts[inverse], tf.int64)
        self._count = tf.constant(counts[inverse], tf.int64)

    def draw(self, anchors, seed):
        """Negatives for `anchors`, int64 `(batch,)`; `seed` is a tensor of two integers and alone decides."""
        start, count = tf.gather(self._start, anchors), tf.gather(self._count, anchors)
        bits = tf.random.stateless_uniform(
            tf.shape(anchors), seed, minval=None, maxval=None, dtype=tf.uint64, alg="philox"
        )
        others = tf.cast(tf.size(self._order), tf.int64) - count
        place = tf.cast(bits % tf.cast(others, tf.uint64), tf.int64)
        return tf.gather(self._order, tf.where(place < start, place, place + count))
