"""All views of all samples, for whoever answers each of them once."""

import tensorflow as tf

from keras_tkd.data.pipelines import PARALLEL_CALLS, PREFETCHED_BATCHES, as_tensor, steady
from keras_tkd.data.preprocessing import in_view


def view_batches(images, batch_size, *, seed, augment=None, views=1, first=0):
    """All samples in all their views, view by view: what `triplet_dataset` shows as `"image"`, to the bit.

    Args:
        images, seed, augment: as in `triplet_dataset`.
        batch_size: images per batch; the last batch of each view may be smaller.
        views: number of views, >= 1.
        first: the number of the batch to begin with.

    Returns:
        `tf.data.Dataset` of known cardinality with batches of images, the samples of each view in their own order.
    """
    steps = -(-len(images) // batch_size)
    count = tf.constant(len(images), tf.int64)
    with tf.device("CPU:0"):
        images = as_tensor(images)

    def make_batch(number):
        start = number % steps * batch_size
        index = tf.range(start, tf.minimum(start + batch_size, count))
        return in_view(tf.gather(images, index), index, seed, number // steps, augment)

    numbers = tf.data.Dataset.range(first, steps * views)
    return (
        numbers.map(make_batch, num_parallel_calls=PARALLEL_CALLS).prefetch(PREFETCHED_BATCHES).with_options(steady())
    )
