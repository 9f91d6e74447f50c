"""Batches in which every sample is an anchor once per epoch, with extra images drawn for each anchor."""

import numpy as np
import tensorflow as tf

from keras_tkd.data.arrays import as_tensor
from keras_tkd.data.augmentation import apply_view, choose_view
from keras_tkd.data.epochs import make_epoch_dataset
from keras_tkd.data.mixing import apply_mixed_view, check_mixing
from keras_tkd.data.options import PARALLEL_CALLS, count_batches
from keras_tkd.data.sampling import ClassSampler, make_stateless_seed, shuffle_samples
from keras_tkd.data.sources import ImageSource, as_source
from keras_tkd.data.validation import SEED_LIMIT, check_augmentation, check_batch_size, check_seed, check_views

__all__ = ["make_anchor_dataset"]

# Each role has random numbers of its own: the seed of role number n is `seed + n * SEED_LIMIT`. New roles go to the
# end, or the batches of every seed change.
_ROLES = ("image", "negative", "positive", "partner", "same", "window")


def make_anchor_dataset(
    images,
    labels,
    batch_size,
    draw_extra_images,
    *,
    sampling_labels,
    seed,
    teacher_images=None,
    augment=None,
    mix=None,
    views=None,
    training=True,
    initial_epoch=0,
    initial_step=0,
    share=None,
):
    """Makes batches in which every sample is an anchor once per pass, with extra images for each anchor.

    Args:
        images, labels, batch_size, seed, teacher_images, augment, mix, views, training, initial_epoch, initial_step,
            share: as in `pipelines.triplet_dataset`.
        draw_extra_images: function `(samplers, anchors, make_seed)`, given a dict from a name in `sampling_labels` to a
            `ClassSampler`, the anchors, int64 `(batch,)`, and a function from a role to its seed in this batch. It
            returns two dicts: one from a batch's key to samples, whose images are put under that key, and one of
            further entries of the batch. Anchors and samples are places in their window's `ids`.
        sampling_labels: dict from a sampler's name to its class ids, one for each of `images`.

    Returns:
        `tf.data.Dataset` of known cardinality with elements `(dict, label)`.
    """
    check_batch_size(batch_size)
    check_seed(seed)
    check_views(views)
    check_augmentation(augment)
    check_mixing(mix)
    if teacher_images is not None and len(teacher_images) != len(images):
        raise ValueError(
            "`teacher_images` must hold one image for each of `images`. "
            f"Received: {len(images)} images, {len(teacher_images)} teacher_images"
        )
    if mix is not None:
        labels = mix.read_labels(labels)
        if sampling_labels:
            raise ValueError(
                "Mixed images are of two classes, and others are drawn for images of one. Received: `mix` with "
                f"{' and '.join(sampling_labels)} images to be drawn. Draw none (`negatives=None, positives=None`), or "
                "do not mix"
            )
    source, beside = as_source(images), None
    if isinstance(teacher_images, ImageSource):
        # One pass over the stored images gives both: what is decoded is resized twice.
        source.check_beside(teacher_images)
        teacher_images, beside = None, teacher_images
    steps_per_window = count_batches(source.window_size, batch_size)
    # Kept in the host's memory: on a GPU, whole data sets would take the place of models.
    with tf.device("CPU:0"):
        labels = tf.constant(np.asarray(labels))
        sampling_labels = {name: tf.constant(np.asarray(classes)) for name, classes in sampling_labels.items()}
        teacher_images = None if teacher_images is None else as_tensor(teacher_images)

    augment = augment if training else None

    def make_samplers(ids):
        return {name: ClassSampler(tf.gather(classes, ids)) for name, classes in sampling_labels.items()}

    if source.whole is not None:
        # One window, the same in every epoch: what is sorted for draws from it is sorted once, and not in the pipeline,
        # every pass over which begins by preparing its functions anew, a large part of a second in all.
        with tf.device("CPU:0"):
            samplers_of_whole = make_samplers(source.whole.ids)

    def make_epoch(epoch):
        if source.whole is not None:
            return make_batches(epoch, epoch, source.whole, samplers_of_whole)
        window_seed = make_stateless_seed(_make_role_seed(seed, "window"), epoch) if training else None
        # Folders of images are stored class by class: of windows in that order, few would have an image to draw.
        windows = source.windows(window_seed, spread=bool(sampling_labels), beside=beside)

        def make_window(number, window):
            # Windows are numbered through all epochs.
            return make_batches(epoch, number + epoch * source.window_count, window, make_samplers(window.ids))

        batches = windows.enumerate().flat_map(make_window)
        if source.window_count == 1:
            return batches
        # The last batch of a window may lack some images, which the next one has: only then is it known what a batch
        # holds, and so what a share of it.
        batches = batches.rebatch(batch_size).skip(initial_step)
        return batches if share is None else batches.map(lambda *batch: _take_share(batch, share))

    def make_batches(epoch, number, window, samplers):
        # Steps are numbered through all windows, and these through all epochs: no two share random numbers.
        count = tf.size(window.ids, tf.int64)
        order = shuffle_samples(count, seed, number) if training else tf.range(count)
        view = choose_view(epoch, seed, views)

        def make_batch(step):
            places = order[step * batch_size : (step + 1) * batch_size]
            index = tf.gather(window.ids, places)
            step += number * steps_per_window

            def make_seed(role):
                return make_stateless_seed(_make_role_seed(seed, role), step)

            def show(images, index, role, view):
                return apply_view(images, index, _make_role_seed(seed, role), view, augment)

            extra, batch = draw_extra_images(samplers, places, make_seed)
            if share is not None and source.window_count == 1:
                # After what is drawn, which must not depend on how many share; before any image is made.
                places, index, extra, batch = _take_share((places, index, extra, batch), share)
            for role, drawn in extra.items():
                # A fresh view in every epoch, even where the anchors' views are bounded: those are bounded for the sake
                # of a teacher cache, which holds what the teacher says of anchors alone.
                batch[role] = show(window.gather_images(drawn), tf.gather(window.ids, drawn), role, epoch)
            batch["index"] = index
            own = {"image": window.gather_images}
            if teacher_images is not None:
                own["teacher_image"] = lambda places: tf.gather(teacher_images, tf.gather(window.ids, places))
            if beside is not None:
                own["teacher_image"] = window.gather_teacher_images
            label = tf.gather(labels, index)
            if mix is not None and training:
                # Where all samples are at hand, a mixed image is a function of sample and view, which a cache can keep.
                draw = view if source.window_count == 1 else number
                partners = mix.draw_partners(places, seed, draw, count)
                others = tf.gather(window.ids, partners)
                shown = {
                    key: apply_mixed_view(gather(places), index, gather(partners), others, seed, view, augment, mix)
                    for key, gather in own.items()
                }
                batch |= {key: images for key, (images, _) in shown.items()}
                if source.window_count == 1:
                    batch["mixed_view"] = tf.fill(tf.shape(index), view)
                return batch, mix.mix_labels(label, tf.gather(labels, others), shown["image"][1])
            for key, gather in own.items():
                # All in the role of the student's images, and so of their seeds: both models see the same crop.
                batch[key] = show(gather(places), index, "image", view)
            if augment:
                batch["view"] = tf.fill(tf.shape(index), view)
            # Rows where nothing is mixed, too: one loss on the labels reads both.
            return batch, label if mix is None else mix.make_rows(label)

        # Where a window is an epoch, batches that are left out are not made.
        first = initial_step if source.window_count == 1 else 0
        steps = tf.data.Dataset.range(first, count_batches(count, batch_size))
        return steps.map(make_batch, num_parallel_calls=PARALLEL_CALLS)

    batch_count = count_batches(len(labels), batch_size)
    return make_epoch_dataset(make_epoch, batch_count, training, initial_epoch, initial_step)


def _make_role_seed(seed, role):
    return seed + _ROLES.index(role) * SEED_LIMIT


def _take_share(nest, share):
    """Returns the rows of a batch that are one process's: of `count` processes all get as many, or one row more."""
    index, count = share
    size = tf.shape(tf.nest.flatten(nest)[0])[0]
    first, end = size * index // count, size * (index + 1) // count
    return tf.nest.map_structure(lambda rows: rows[first:end], nest)
