"""tf.data pipelines over images. A batch is a pure function of (seed, epoch, step).

One order throughout: windows, indices, gather, augment, prefetch. Whole batches at every stage, no Python per image.
"""

import numpy as np
import tensorflow as tf

from keras_tkd.data.arrays import as_tensor
from keras_tkd.data.augmentation import in_view, view_of_epoch, view_seeds
from keras_tkd.data.options import PARALLEL_CALLS, PREFETCHED_BATCHES, deterministic_options, steps
from keras_tkd.data.sampling import ClassOrder, ClassSampler, check_two_classes, draw, epoch_order, key
from keras_tkd.data.sources import source_of

SEEDS = 2**30
# Each has random numbers of its own: the seed of role number n is `seed + n * SEEDS`.
ROLES = ("image", "negative", "positive", "partner", "same", "window")


def triplet_dataset(
    images,
    labels,
    batch_size,
    *,
    seed,
    negatives="other_class",
    negative_labels=None,
    positives=None,
    teacher_images=None,
    augment=None,
    views=None,
    training=True,
    initial_epoch=0,
):
    """Batches of anchors with a negative, and as needed a positive, for each.

    Guarantees: every sample is an anchor exactly once per pass. A negative is never of its anchor's class, is uniform
    over all samples of all other classes, and is drawn afresh in every pass; a positive is uniform over the other
    samples of the class. A batch is a pure function of (`seed`, epoch, step), whatever the number of threads; each pass
    over the dataset is the next epoch. With `training=False` the samples come in their own order, without augmentation,
    and with the same negatives and positives in every pass.

    Args:
        images: `(samples, height, width, channels)`, kept in the dtype given. Memory from `keras_tkd.data.load` is
            shared; other arrays are copied once. Or an `ImageStream`, which says what then holds inside a window only.
        labels: `(samples,)` class ids, any integers.
        batch_size: anchors per batch, >= 1. The last batch of a pass may be smaller.
        seed: integer in [0, 2^30).
        negatives: `"other_class"`, or None for batches without negatives.
        negative_labels: the classes by which negatives are told apart, in place of `labels`: for example the classes
            that the teacher names, `argmax` of its outputs.
        positives: `"same_class"`, another sample of the anchor's class (the anchor itself where it is alone in it), or
            None for batches without positives.
        teacher_images: `(samples, ...)`, what a privileged teacher sees in place of `images`: the same samples, and
            views of the same seeds, which are the same views where the images are of one size. Or None.
        augment: a function `(images, seeds) -> images` such as `keras_tkd.data.crop_and_flip`, or None.
        views: how many views of an anchor there are: None for a fresh one in each pass, or K >= 1, and each K passes
            show all K, see `view_of_epoch`. Negatives and positives are fresh views in each pass either way.
        training: see above.
        initial_epoch: the epoch of the first pass.

    Returns:
        `tf.data.Dataset` of known cardinality with elements `({"image", "negative", "index"}, label)`, and `"positive"`
        and `"teacher_image"` where these are asked for; `"index"` are the samples' positions in `images`, and where
        images are augmented, `"view"` is the number of the anchors' view.

    Raises:
        ValueError: images and labels of different length, fewer than two classes, a batch size or `views` below 1.
    """
    check_choice("negatives", negatives, "other_class")
    check_choice("positives", positives, "same_class")
    sampling_labels = {}
    if negatives:
        sampling_labels["negative"] = labels if negative_labels is None else negative_labels
        check_lengths(images, sampling_labels["negative"], "labels" if negative_labels is None else "negative_labels")
        check_two_classes(sampling_labels["negative"])
    check_lengths(images, labels, "labels")
    if positives:
        sampling_labels["positive"] = labels

    def extra_images(samplers, anchors, seed_of):
        draws = {"negative": ClassSampler.other_class, "positive": ClassSampler.same_class}
        return {role: draws[role](sampler, anchors, seed_of(role)) for role, sampler in samplers.items()}, {}

    return anchor_dataset(
        images,
        labels,
        batch_size,
        extra_images,
        sampling_labels=sampling_labels,
        seed=seed,
        teacher_images=teacher_images,
        augment=augment,
        views=views,
        training=training,
        initial_epoch=initial_epoch,
    )


def pair_dataset(
    images, labels, batch_size, *, seed, partner_labels=None, augment=None, views=None, training=True, initial_epoch=0
):
    """Batches of anchors with a partner for each, half of them of the anchor's class.

    Guarantees: those of `triplet_dataset`, whose order of anchors it has. A fair coin for each sample and pass says
    whether the partner is of the class: then it is uniform over the other samples of the class (the anchor itself where
    it is alone in it), else uniform over all samples of all other classes.

    Args:
        images, labels, batch_size, seed, augment, views, training, initial_epoch: as in `triplet_dataset`.
        partner_labels: the classes that say which partners are of the anchor's, in place of `labels`: for example those
            that the teacher names.

    Returns:
        `tf.data.Dataset` of known cardinality with elements `({"image", "partner", "same", "index"}, label)`; `"same"`
        are bools, whether the partner is of the class.

    Raises:
        ValueError: as in `triplet_dataset`.
    """
    check_lengths(images, labels, "labels")
    sampling_labels = labels if partner_labels is None else partner_labels
    check_lengths(images, sampling_labels, "labels" if partner_labels is None else "partner_labels")
    check_two_classes(sampling_labels)

    def extra_images(samplers, anchors, seed_of):
        sampler = samplers["partner"]
        same = draw(seed_of("same"), tf.fill(tf.shape(anchors), tf.constant(2, tf.int64))) == 1
        mates, others = (
            sampler.same_class(anchors, seed_of("positive")),
            sampler.other_class(anchors, seed_of("negative")),
        )
        return {"partner": tf.where(same, mates, others)}, {"same": same}

    return anchor_dataset(
        images,
        labels,
        batch_size,
        extra_images,
        sampling_labels={"partner": sampling_labels},
        seed=seed,
        augment=augment,
        views=views,
        training=training,
        initial_epoch=initial_epoch,
    )


def image_dataset(images, labels, batch_size, *, seed, augment=None, views=None, training=True, initial_epoch=0):
    """Batches `(images, labels)`: the anchors that `triplet_dataset` of the same arguments gives, in the same order."""
    dataset = triplet_dataset(
        images,
        labels,
        batch_size,
        seed=seed,
        negatives=None,
        augment=augment,
        views=views,
        training=training,
        initial_epoch=initial_epoch,
    )
    return dataset.map(lambda batch, label: (batch["image"], label))


def class_batches(
    images,
    labels,
    *,
    classes_per_batch,
    samples_per_class,
    seed,
    augment=None,
    training=True,
    initial_epoch=0,
):
    """Batches `(images, labels)` of P classes with K samples each, for losses that compare the rows of a batch.

    Guarantees, with C classes, n samples and ceil(C / P) batches to a round:
    - A batch holds P different classes and K samples of each, class by class. No sample is in it twice, unless its
      class has fewer than K samples: those are then repeated.
    - Every round holds every class, once, or twice where P does not divide C, to fill the round's last batch. The order
      of the classes is fresh in every round.
    - An epoch is ceil(n / (P K ceil(C / P))) rounds: the fewest that show n samples. Every class is in each epoch.
    - In an epoch, a class's samples are walked through in a fresh order, and none comes again before all of its class
      have come. So a class of up to K * rounds samples is shown whole; of a larger one each epoch shows another random
      part; of a smaller one samples come again.
    - A batch is a pure function of (`seed`, epoch, step), and each pass is the next epoch. With `training=False` all
      passes are alike, and nothing is augmented.

    Args:
        images, labels, seed, augment, initial_epoch: as in `triplet_dataset`. A sample that comes again is a new view.
        classes_per_batch: P, from 1 to the number of classes.
        samples_per_class: K, >= 1.
        training: see above.

    Returns:
        `tf.data.Dataset` of known cardinality with elements `(images, labels)`, each of P * K rows.

    Raises:
        ValueError: images and labels of different length; P or K out of range.
    """
    check_lengths(images, labels, "labels")
    check_seed(seed)
    order = ClassOrder(labels, classes_per_batch, samples_per_class, seed, round_seed=seed + SEEDS)
    with tf.device("CPU:0"):
        images, labels = as_tensor(images), tf.constant(np.asarray(labels))

    def batches_of(epoch):
        samples = order(epoch)

        def make_batch(step):
            numbers = step * order.batch_size + tf.range(order.batch_size, dtype=tf.int64)
            index = tf.gather(samples, numbers)
            picked = tf.gather(images, index)
            if augment and training:
                picked = augment(picked, view_seeds(numbers, seed, epoch))
            return picked, tf.gather(labels, index)

        return numbered(order.count, order.batch_size).map(make_batch, num_parallel_calls=PARALLEL_CALLS)

    return passes(batches_of, steps(order.count, order.batch_size), training, initial_epoch)


def anchor_dataset(
    images,
    labels,
    batch_size,
    extra_images,
    *,
    sampling_labels,
    seed,
    teacher_images=None,
    augment=None,
    views=None,
    training=True,
    initial_epoch=0,
):
    """Batches in which every sample is an anchor once per pass, with extra images: what the data sets above share.

    Args:
        extra_images: a function of a `ClassSampler` for each of `sampling_labels`, of the anchors, and of
            `seed_of(role)`, which gives the seed of a role in this batch. It returns two dicts: samples, whose images
            come under their names, and what comes in the batch as it is. Samples are numbered as in the window that
            holds them.
        sampling_labels: dict from a sampler's name to the classes of all samples that it goes by.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1. Received: batch_size={batch_size}")
    check_seed(seed)
    check_views(views)
    if teacher_images is not None and len(teacher_images) != len(images):
        raise ValueError(
            "`teacher_images` must hold one image for each of `images`. "
            f"Received: {len(images)} images, {len(teacher_images)} teacher_images"
        )
    source = source_of(images)
    window_steps = steps(source.window_size, batch_size)
    with tf.device("CPU:0"):
        labels = tf.constant(np.asarray(labels))
        sampling_labels = {name: tf.constant(np.asarray(classes)) for name, classes in sampling_labels.items()}
        teacher_images = None if teacher_images is None else as_tensor(teacher_images)

    augment = augment if training else None

    def windows_of(epoch):
        windows = source.windows(key(role_seed(seed, "window"), epoch) if training else None)
        batches = windows.enumerate().flat_map(lambda number, window: batches_of(epoch, number, window))
        # The last batch of a window may lack some images, which the next one has.
        return batches.rebatch(batch_size) if source.window_count > 1 else batches

    def batches_of(epoch, number, window):
        number += epoch * source.window_count
        count = tf.size(window.ids, tf.int64)
        order = epoch_order(count, seed, number) if training else tf.range(count)
        samplers = {name: ClassSampler(tf.gather(ids, window.ids)) for name, ids in sampling_labels.items()}
        view = view_of_epoch(epoch, seed, views)

        def make_batch(step):
            places = order[step * batch_size : (step + 1) * batch_size]
            index = tf.gather(window.ids, places)
            step += number * window_steps
            found, batch = extra_images(samplers, places, lambda role: key(role_seed(seed, role), step))

            def seen(images, index, role, view):
                return in_view(images, index, role_seed(seed, role), view, augment)

            for role, drawn in found.items():
                batch[role] = seen(window.images_of(drawn), tf.gather(window.ids, drawn), role, epoch)
            batch |= {"image": seen(window.images_of(places), index, "image", view), "index": index}
            if teacher_images is not None:
                batch["teacher_image"] = seen(tf.gather(teacher_images, index), index, "image", view)
            if augment:
                batch["view"] = tf.fill(tf.shape(index), view)
            return batch, tf.gather(labels, index)

        return numbered(count, batch_size).map(make_batch, num_parallel_calls=PARALLEL_CALLS)

    return passes(windows_of, steps(len(labels), batch_size), training, initial_epoch)


def numbered(count, batch_size):
    return tf.data.Dataset.range(steps(count, batch_size))


def passes(batches_of, batch_count, training, initial_epoch):
    """Dataset of batches, one pass of which is one epoch.

    Args:
        batches_of: function from the number of an epoch to the dataset of its batches.
        batch_count: how many these are.
        training: whether each pass is the next epoch; else all are the first.
    """
    counter = tf.Variable(initial_epoch - 1, dtype=tf.int64, trainable=False)

    def begin_pass(_):
        return counter.assign_add(1).read_value() if training else tf.constant(initial_epoch, tf.int64)

    dataset = tf.data.Dataset.from_tensors(0).map(begin_pass).flat_map(batches_of)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batch_count))
    return dataset.prefetch(PREFETCHED_BATCHES).with_options(deterministic_options())


def role_seed(seed, role):
    return seed + ROLES.index(role) * SEEDS


def check_lengths(images, labels, name):
    shape = np.shape(labels)
    if len(shape) != 1 or len(images) != shape[0] or not len(images):
        raise ValueError(
            f"`{name}` must hold one class id for each image. Received: {len(images)} images, {name} of shape {shape}"
        )


def check_seed(seed):
    if not 0 <= seed < SEEDS:
        raise ValueError(f"`seed` must be in [0, {SEEDS}). Received: seed={seed}")


def check_views(views):
    if views is not None and views < 1:
        raise ValueError(f"`views` must be >= 1, or None for a fresh view in each pass. Received: views={views}")


def check_choice(argument, value, choice):
    if value not in (choice, None):
        raise ValueError(f'`{argument}` must be "{choice}" or None. Received: {argument}={value!r}')
