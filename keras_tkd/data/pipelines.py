"""tf.data pipelines over images in memory. A batch is a pure function of (seed, epoch, step).

One order throughout: indices, gather, augment, prefetch. Whole batches at every stage, no Python per image.
"""

import functools

import numpy as np
import tensorflow as tf

from keras_tkd.data.preprocessing import view_seeds
from keras_tkd.data.triplets import NegativeSampler, epoch_order

PARALLEL_CALLS = 2
PREFETCHED_BATCHES = 4
# Keeps the views of negatives, and the draws of negatives, apart from the order of the anchors.
NEGATIVE_STREAM = 2**30


def triplet_dataset(
    images,
    labels,
    batch_size,
    *,
    seed,
    negatives="other_class",
    negative_labels=None,
    augment=None,
    training=True,
    initial_epoch=0,
):
    """Batches of anchors with a negative for each.

    Guarantees: every sample is an anchor exactly once per pass. A negative is never of its anchor's class, is uniform
    over all samples of all other classes, and is drawn afresh in every pass. A batch is a pure function of (`seed`,
    epoch, step), whatever the number of threads; each pass over the dataset is the next epoch. With `training=False`
    the samples come in their own order, without augmentation, and with the same negatives in every pass.

    Args:
        images: `(samples, height, width, channels)`, kept in the dtype given. Memory from `keras_tkd.data.load` is
            shared; other arrays are copied once.
        labels: `(samples,)` class ids, any integers.
        batch_size: anchors per batch, >= 1. The last batch of a pass may be smaller.
        seed: integer in [0, 2^30).
        negatives: `"other_class"`, or None for batches without negatives.
        negative_labels: the classes by which negatives are told apart, in place of `labels`: for example the classes
            that the teacher names, `argmax` of its outputs.
        augment: a function `(images, seeds) -> images` such as `keras_tkd.data.crop_and_flip`, or None.
        training: see above.
        initial_epoch: the epoch of the first pass.

    Returns:
        `tf.data.Dataset` of known cardinality with elements `({"image", "negative", "index"}, label)`; `"index"`
        are the samples' positions in `images`.

    Raises:
        ValueError: images and labels of different length, fewer than two classes, a batch size below 1.
    """
    if negatives not in ("other_class", None):
        raise ValueError(f'`negatives` must be "other_class" or None. Received: negatives={negatives!r}')
    sampler = None
    if negatives:
        told_apart_by = labels if negative_labels is None else negative_labels
        check_lengths(images, told_apart_by, "labels" if negative_labels is None else "negative_labels")
        sampler = NegativeSampler(told_apart_by)
    check_lengths(images, labels, "labels")
    if batch_size < 1 or not 0 <= seed < NEGATIVE_STREAM:
        raise ValueError(
            f"`batch_size` must be >= 1 and `seed` in [0, {NEGATIVE_STREAM}). "
            f"Received: batch_size={batch_size}, seed={seed}"
        )
    count = len(labels)
    steps = -(-count // batch_size)
    with tf.device("CPU:0"):
        images, labels = as_tensor(images), tf.constant(np.asarray(labels))

    def look_up(index, stream, epoch):
        picked = tf.gather(images, index)
        return augment(picked, view_seeds(index, stream, epoch)) if augment and training else picked

    def make_batch(epoch, step, index):
        batch = {"image": look_up(index, seed, epoch), "index": index}
        if sampler:
            key = tf.stack([tf.constant(seed + NEGATIVE_STREAM, tf.int64), epoch * steps + step])
            negative = sampler.draw(index, key)
            batch["negative"] = look_up(negative, seed + NEGATIVE_STREAM, epoch)
        return batch, tf.gather(labels, index)

    options = tf.data.Options()
    # Autotuning off: its pauses round the time of an epoch up, to 1.3, 2.5, 5.1 ... seconds.
    options.autotune.enabled = False
    options.deterministic = True
    order = functools.partial(epoch_order, count, seed) if training else None
    dataset = index_batches(count, batch_size, initial_epoch, order)
    dataset = dataset.map(make_batch, num_parallel_calls=PARALLEL_CALLS)
    return dataset.prefetch(PREFETCHED_BATCHES).with_options(options)


def image_dataset(images, labels, batch_size, *, seed, augment=None, training=True, initial_epoch=0):
    """Batches `(images, labels)`: the anchors that `triplet_dataset` of the same arguments gives, in the same order."""
    dataset = triplet_dataset(
        images,
        labels,
        batch_size,
        seed=seed,
        negatives=None,
        augment=augment,
        training=training,
        initial_epoch=initial_epoch,
    )
    return dataset.map(lambda batch, label: (batch["image"], label))


def index_batches(count, batch_size, initial_epoch, order):
    """Dataset of `(epoch, step, indices)`, one pass of which is one epoch.

    Args:
        order: function from the number of an epoch to the order of its samples; each pass is then the next epoch. None
            for passes that are all alike, in the samples' own order.
    """
    steps = -(-count // batch_size)
    counter = tf.Variable(initial_epoch - 1, dtype=tf.int64, trainable=False)

    def begin_pass(_):
        epoch = counter.assign_add(1).read_value() if order else tf.constant(initial_epoch, tf.int64)
        return epoch, order(epoch) if order else tf.range(count, dtype=tf.int64)

    def batches(epoch, indices):
        steps_of_epoch = tf.data.Dataset.range(steps)
        return steps_of_epoch.map(lambda step: (epoch, step, indices[step * batch_size : (step + 1) * batch_size]))

    dataset = tf.data.Dataset.from_tensors(0).map(begin_pass).flat_map(batches)
    return dataset.apply(tf.data.experimental.assert_cardinality(steps))


def as_tensor(images):
    """A tensor of the array's values: of the same memory where it is aligned as TensorFlow needs it, else a copy."""
    images = np.ascontiguousarray(images) if isinstance(images, np.ndarray) else np.asarray(images)
    if images.ctypes.data % 64 == 0 and images.flags.writeable and images.size:
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return tf.constant(images)


def check_lengths(images, labels, name):
    shape = np.shape(labels)
    if len(shape) != 1 or len(images) != shape[0] or not len(images):
        raise ValueError(
            f"`{name}` must hold one class id for each image. Received: {len(images)} images, {name} of shape {shape}"
        )
