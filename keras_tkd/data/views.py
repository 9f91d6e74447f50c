"""All views of all samples, for whoever answers each of them once."""

import tensorflow as tf

from keras_tkd.data.augmentation import in_view
from keras_tkd.data.options import PARALLEL_CALLS, PREFETCHED_BATCHES, deterministic_options, steps
from keras_tkd.data.sources import source_of


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
    source = source_of(images)
    batch_count = steps(len(images), batch_size)
    first_view, first_batch = divmod(first, batch_count)

    def batches_of(view):
        batches = source.batches(batch_size, tf.where(view == first_view, tf.constant(first_batch, tf.int64), 0))
        return batches.map(lambda index, images: (view, index, images))

    dataset = tf.data.Dataset.range(first_view, views).flat_map(batches_of)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(max(batch_count * views - first, 0)))
    dataset = dataset.map(
        lambda view, index, images: in_view(images, index, seed, view, augment), num_parallel_calls=PARALLEL_CALLS
    )
    return dataset.prefetch(PREFETCHED_BATCHES).with_options(deterministic_options())
