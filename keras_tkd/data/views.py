"""All views of all samples, each once: what a teacher cache is computed from."""

import tensorflow as tf

from keras_tkd.data.augmentation import apply_view
from keras_tkd.data.mixing import apply_mixed_view, check_mixing
from keras_tkd.data.options import (
    PARALLEL_CALLS,
    PREFETCHED_BATCHES,
    as_written,
    count_batches,
    deterministic_options,
    rewrite_user_function,
)
from keras_tkd.data.sources import InMemoryImages, as_source

__all__ = ["view_batches"]


def view_batches(images, batch_size, *, seed, augment=None, mix=None, views=1, first=0, every=1):
    """Makes batches of all samples in all their views, view by view.

    They are to the bit what `triplet_dataset` shows as `"image"`.

    Args:
        images, seed, augment, mix: as in `triplet_dataset`; images that are mixed are an array.
        batch_size: images per batch; the last batch of each view may be smaller.
        views: number of views, >= 1.
        first: the number of the batch to begin with.
        every: 1 makes all batches from there on, 2 every other one, and so on; others are not decoded.

    Returns:
        `tf.data.Dataset` of known cardinality with batches of images, the samples of each view in their own order.

    Raises:
        ValueError: images of a stream to be mixed.
    """
    check_mixing(mix)
    source = as_source(images)
    # A stream mixes inside a window, whose samples are others in each epoch, and has no other image at hand.
    if mix is not None and not isinstance(source, InMemoryImages):
        raise ValueError(
            "Mixed images come again only where all images are in memory: each is a function of the seed, two samples "
            f"and the view. Received: `mix` with {type(images).__name__}. Load the images into memory, or run the "
            "teacher in every step, without a cache"
        )
    batch_count = count_batches(len(images), batch_size)
    first_view, first_batch = divmod(first, batch_count)
    augment = rewrite_user_function(augment) if augment else None

    @as_written
    def make_batches(view):
        # Only the first view may be begun in its middle, where a cache that was interrupted goes on.
        start = tf.where(view == first_view, tf.constant(first_batch, tf.int64), 0)
        # Up to the next that is a multiple of `every` behind the first of all.
        start += (first - view * batch_count - start) % every
        batches = source.batches(batch_size, start, every)
        return batches.map(lambda index, images: (view, index, images))

    dataset = tf.data.Dataset.range(first_view, views).flat_map(make_batches)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(range(first, batch_count * views, every))))

    @as_written
    def show(view, index, images):
        if mix is None:
            return apply_view(images, index, seed, view, augment)
        partners = mix.draw_partners(index, seed, view, source.window_size)
        return apply_mixed_view(images, index, source.gather_images(partners), partners, seed, view, augment, mix)[0]

    dataset = dataset.map(show, num_parallel_calls=PARALLEL_CALLS)
    return dataset.prefetch(PREFETCHED_BATCHES).with_options(deterministic_options())
