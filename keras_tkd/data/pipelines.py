"""Pipelines that make batches of images, with `tf.data`. A batch is a pure function of (seed, epoch, step).

All go through the same stages: windows, indices, gather, augment, prefetch. Each stage handles whole batches, and no
Python runs per image.
"""

import numpy as np
import tensorflow as tf

from keras_tkd.data.anchors import make_anchor_dataset
from keras_tkd.data.arrays import as_tensor
from keras_tkd.data.augmentation import make_view_seeds
from keras_tkd.data.epochs import make_epoch_dataset
from keras_tkd.data.options import PARALLEL_CALLS, as_written, count_batches, rewrite_user_function
from keras_tkd.data.sampling import ClassOrder, ClassSampler, check_two_classes, draw_integers
from keras_tkd.data.validation import SEED_LIMIT, check_augmentation, check_choice, check_labels, check_seed

__all__ = ["class_batches", "image_dataset", "pair_dataset", "triplet_dataset"]


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
    mix=None,
    views=None,
    training=True,
    initial_epoch=0,
    initial_step=0,
    share=None,
):
    """Makes batches of anchors, each with a negative and, where asked for, a positive.

    Guarantees: every sample is an anchor exactly once per pass. A negative is never of its anchor's class, is uniform
    over all samples of all other classes, and is drawn afresh in every pass; a positive is uniform over the other
    samples of the class. A batch is a pure function of (`seed`, epoch, step), whatever the number of threads; each pass
    over the dataset is the next epoch. With `training=False` the samples come in their own order, without augmentation,
    and with the same negatives and positives in every pass.

    Args:
        images: `(samples, height, width, channels)`, kept in the dtype given. Memory from `keras_tkd.data.load` is
            shared; other arrays are copied once. Or an `ImageStream`, which says what then holds inside a window only.
        labels: `(samples,)` class ids, any whole numbers, floats and booleans too; or multi-hot rows
            `(samples, classes)` of images of several classes, with `negatives=None` and without `positives`.
        batch_size: anchors per batch, >= 1. The last batch of a pass may be smaller.
        seed: integer in [0, 2^30).
        negatives: `"other_class"`, or None for batches without negatives.
        negative_labels: the classes that decide what is a negative, in place of `labels`: for example the classes that
            the teacher predicts, `argmax` of its outputs.
        positives: `"same_class"`, another sample of the anchor's class (the anchor itself if it has no other), or
            None for batches without positives.
        teacher_images: `(samples, ...)`, what a privileged teacher sees in place of `images`: the same samples, and
            views of the same seeds, which are the same views where the images are of one size, and where
            `make_augmentation(..., drawn_for=...)` draws them for one. Or the stream of the same samples in another
            size, `Splits.teacher`'s, where `images` are a stream. Or None.
        augment: a function `(images, seeds) -> images` such as `keras_tkd.data.crop_and_flip`, or None.
        mix: a `Mixing`, which mixes each image and its label with those of another sample, after `augment`; or None.
            With it `negatives` and `positives` must be None, and labels come as rows, one-hot outside of training.
        views: number of views of each anchor: None for a fresh one in each pass, or K >= 1, and each K passes show all
            K, see `choose_view`. Negatives and positives are fresh views in each pass either way.
        training: see above.
        initial_epoch: the epoch of the first pass.
        initial_step: number of batches that each pass leaves out at its beginning: for the rest of an epoch that was
            interrupted. The epochs after it need a data set of their own.
        share: `(i, n)` for process number i, from 0, of n that share each batch: its rows of the very batch that one
            process would make. Of an `ImageStream` all images are decoded all the same. None for all rows.

    Returns:
        `tf.data.Dataset` of known cardinality with elements `({"image", "negative", "index"}, label)`, and `"positive"`
        and `"teacher_image"` where these are asked for; `"index"` are the samples' positions in `images`, and where
        images are augmented, `"view"` is the number of the anchors' view; where they are mixed, `"mixed_view"`.

    Raises:
        ValueError: images and labels of different length, fewer than two classes, a batch size or `views` below 1;
            `mix` with negatives or positives.
    """
    check_choice("negatives", negatives, "other_class")
    check_choice("positives", positives, "same_class")
    # Of images of several classes none is of another class than the anchor's, or of the same, as such.
    labels = check_labels(images, labels, multi_hot=negatives is None and positives is None)
    sampling_labels = {}
    if negatives:
        sampling_labels["negative"] = labels
        if negative_labels is not None:
            sampling_labels["negative"] = check_labels(images, negative_labels, "negative_labels")
        check_two_classes(sampling_labels["negative"])
    if positives:
        sampling_labels["positive"] = labels

    def draw_extra_images(samplers, anchors, make_seed):
        draws = {"negative": ClassSampler.draw_other_class, "positive": ClassSampler.draw_same_class}
        return {role: draws[role](sampler, anchors, make_seed(role)) for role, sampler in samplers.items()}, {}

    return make_anchor_dataset(
        images,
        labels,
        batch_size,
        draw_extra_images,
        sampling_labels=sampling_labels,
        seed=seed,
        teacher_images=teacher_images,
        augment=augment,
        mix=mix,
        views=views,
        training=training,
        initial_epoch=initial_epoch,
        initial_step=initial_step,
        share=share,
    )


def pair_dataset(
    images,
    labels,
    batch_size,
    *,
    seed,
    partner_labels=None,
    teacher_images=None,
    augment=None,
    views=None,
    training=True,
    initial_epoch=0,
    initial_step=0,
    share=None,
):
    """Makes batches of anchors, each with a partner, half of which are of the anchor's class.

    Guarantees: those of `triplet_dataset`, with the same order of anchors. A fair coin for each sample and pass decides
    whether the partner is of the anchor's class: it is then uniform over the other samples of the class (the anchor
    itself if there is no other), and else uniform over all samples of all other classes.

    Args:
        images, labels, batch_size, seed, teacher_images, augment, views, training, initial_epoch, initial_step, share:
            as in `triplet_dataset`.
        partner_labels: the classes by which partners are drawn, in place of `labels`: for example those that the
            teacher predicts.

    Returns:
        `tf.data.Dataset` of known cardinality with elements `({"image", "partner", "same", "index"}, label)`, and
        `"teacher_image"` where asked for; `"same"` is True where the partner is of the anchor's class.

    Raises:
        ValueError: as in `triplet_dataset`.
    """
    sampling_labels = labels = check_labels(images, labels)
    if partner_labels is not None:
        sampling_labels = check_labels(images, partner_labels, "partner_labels")
    check_two_classes(sampling_labels)

    def draw_extra_images(samplers, anchors, make_seed):
        sampler = samplers["partner"]
        same = draw_integers(make_seed("same"), tf.fill(tf.shape(anchors), tf.constant(2, tf.int64))) == 1
        # Both are drawn for every anchor, and one is dropped: a draw costs little, and needs no sorting by the coin.
        positives = sampler.draw_same_class(anchors, make_seed("positive"))
        negatives = sampler.draw_other_class(anchors, make_seed("negative"))
        return {"partner": tf.where(same, positives, negatives)}, {"same": same}

    return make_anchor_dataset(
        images,
        labels,
        batch_size,
        draw_extra_images,
        sampling_labels={"partner": sampling_labels},
        seed=seed,
        teacher_images=teacher_images,
        augment=augment,
        views=views,
        training=training,
        initial_epoch=initial_epoch,
        initial_step=initial_step,
        share=share,
    )


def image_dataset(
    images,
    labels,
    batch_size,
    *,
    seed,
    augment=None,
    mix=None,
    views=None,
    training=True,
    initial_epoch=0,
    initial_step=0,
    share=None,
):
    """Makes batches `(images, labels)` of the anchors of `triplet_dataset`, in the same order.

    Arguments and errors are those of `triplet_dataset`.
    """
    # Of that very pipeline: a student alone must see what a distilled one sees, in the same order.
    dataset = triplet_dataset(
        images,
        labels,
        batch_size,
        seed=seed,
        negatives=None,
        augment=augment,
        mix=mix,
        views=views,
        training=training,
        initial_epoch=initial_epoch,
        initial_step=initial_step,
        share=share,
    )
    return dataset.map(as_written(lambda batch, label: (batch["image"], label)))


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
    initial_step=0,
):
    """Makes batches `(images, labels)` of P classes with K samples each, for losses that compare the rows of a batch.

    Guarantees, with C classes, n samples and ceil(C / P) batches to a round:
    - A batch holds P different classes and K samples of each, class by class. No sample is in it twice, unless its
      class has fewer than K samples, which are then repeated.
    - Every round holds every class, once, or twice where P does not divide C, to fill the round's last batch. The order
      of the classes is fresh in every round.
    - An epoch is ceil(n / (P K ceil(C / P))) rounds: the fewest that show n samples. Every class is in each epoch.
    - In an epoch, a class's samples are walked through in a fresh order, and none is repeated before all of its class
      are shown. So a class of up to K * rounds samples is shown whole; of a larger one each epoch shows another random
      part; of a smaller one samples are repeated.
    - A batch is a pure function of (`seed`, epoch, step), and each pass is the next epoch. With `training=False` all
      passes are alike, and nothing is augmented.

    Args:
        images, labels, seed, augment, initial_epoch, initial_step: as in `triplet_dataset`. A sample that is repeated
            is a new view.
        classes_per_batch: P, from 1 to the number of classes.
        samples_per_class: K, >= 1.
        training: see above.

    Returns:
        `tf.data.Dataset` of known cardinality with elements `(images, labels)`, each of P * K rows.

    Raises:
        ValueError: images and labels of different length; P or K out of range.
    """
    labels = check_labels(images, labels)
    check_seed(seed)
    check_augmentation(augment)
    order = ClassOrder(labels, classes_per_batch, samples_per_class, seed, round_seed=seed + SEED_LIMIT)
    batch_count = count_batches(order.count, order.batch_size)
    # Kept in the host's memory: on a GPU, whole data sets would take the place of models.
    with tf.device("CPU:0"):
        images, labels = as_tensor(images), tf.constant(np.asarray(labels))

    augment = rewrite_user_function(augment) if augment and training else None

    def make_batches(epoch):
        samples = order(epoch)

        def make_batch(step):
            # Views are seeded by the place in the epoch, since a sample may come more than once in it.
            numbers = step * order.batch_size + tf.range(order.batch_size, dtype=tf.int64)
            index = tf.gather(samples, numbers)
            picked = tf.gather(images, index)
            if augment:
                picked = augment(picked, make_view_seeds(numbers, seed, epoch))
            return picked, tf.gather(labels, index)

        return tf.data.Dataset.range(initial_step, batch_count).map(make_batch, num_parallel_calls=PARALLEL_CALLS)

    return make_epoch_dataset(make_batches, batch_count, training, initial_epoch, initial_step)
