"""Batches in which every sample is an anchor once per epoch, with extra images drawn for each anchor."""

import numpy as np
import tensorflow as tf

from keras_tkd.data.arrays import as_tensor
from keras_tkd.data.augmentation import apply_view, choose_view
from keras_tkd.data.epochs import make_epoch_dataset
from keras_tkd.data.mixing import apply_mixed_view, check_mixing
from keras_tkd.data.options import PARALLEL_CALLS, count_batches, rewrite_user_function
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
    own = None if share is None else _Share(share, len(labels), batch_size, initial_step)
    # Kept in the host's memory: on a GPU, whole data sets would take the place of models.
    with tf.device("CPU:0"):
        labels = tf.constant(np.asarray(labels))
        sampling_labels = {name: tf.constant(np.asarray(classes)) for name, classes in sampling_labels.items()}
        teacher_images = None if teacher_images is None else as_tensor(teacher_images)

    augment = rewrite_user_function(augment) if augment and training else None

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
        spread = bool(sampling_labels)
        if own is None:
            windows = source.windows(window_seed, spread, beside)
        else:
            # Nothing is decoded before it is known whose it is.
            windows = source.encoded_windows(window_seed, spread)

        def make_window(number, window):
            window = window if own is None else source.decode_window(window, beside)
            # Windows are numbered through all epochs.
            numbered = number + epoch * source.window_count
            return make_batches(epoch, numbered, window, make_samplers(window.ids), number * source.window_size)

        batches = windows.enumerate().flat_map(make_window)
        if source.window_count == 1:
            return batches
        # The last batch of a window may lack some images, which the next one has.
        return batches.rebatch(batch_size).skip(initial_step) if own is None else own.cut_batches(batches)

    def make_batches(epoch, number, window, samplers, start=0):
        # `start` is the window's first place in the epoch.
        # Steps are numbered through all windows, and these through all epochs: no two share random numbers.
        count = tf.size(window.ids, tf.int64)
        order = shuffle_samples(count, seed, number) if training else tf.range(count)
        view = choose_view(epoch, seed, views)

        def make_batch(step):
            places = order[step * batch_size : (step + 1) * batch_size]
            index = tf.gather(window.ids, places)
            window_step, step = step, step + number * steps_per_window

            def make_seed(role):
                return make_stateless_seed(_make_role_seed(seed, role), step)

            def show(images, index, role, view):
                return apply_view(images, index, _make_role_seed(seed, role), view, augment)

            extra, batch = draw_extra_images(samplers, places, make_seed)
            if own is not None:
                # After what is drawn, which must not depend on how many share; before any image is made.
                mine = find_own(window_step)
                places, index, extra, batch = tf.nest.map_structure(
                    lambda rows: tf.boolean_mask(rows, mine), (places, index, extra, batch)
                )
            for role, drawn in extra.items():
                # A fresh view in every epoch, even where the anchors' views are bounded: those are bounded for the sake
                # of a teacher cache, which holds what the teacher says of anchors alone.
                batch[role] = show(window.gather_images(drawn), tf.gather(window.ids, drawn), role, epoch)
            batch["index"] = index

            def gather_all(places):
                seen = window.gather_all(places)
                if teacher_images is not None:
                    seen.append(tf.gather(teacher_images, tf.gather(window.ids, places)))
                return dict(zip(("image", "teacher_image"), seen, strict=False))

            label = tf.gather(labels, index)
            if mix is not None and training:
                # Where all samples are at hand, a mixed image is a function of sample and view, which a cache can keep.
                draw = view if source.window_count == 1 else number
                partners = mix.draw_partners(places, seed, draw, count)
                others = tf.gather(window.ids, partners)
                theirs = gather_all(partners)
                shown = {
                    key: apply_mixed_view(images, index, theirs[key], others, seed, view, augment, mix)
                    for key, images in gather_all(places).items()
                }
                batch |= {key: images for key, (images, _) in shown.items()}
                if source.window_count == 1:
                    batch["mixed_view"] = tf.fill(tf.shape(index), view)
                return batch, mix.mix_labels(label, tf.gather(labels, others), shown["image"][1])
            for key, images in gather_all(places).items():
                # All in the role of the student's images, and so of their seeds: both models see the same crop.
                batch[key] = show(images, index, "image", view)
            if augment:
                batch["view"] = tf.fill(tf.shape(index), view)
            # Rows where nothing is mixed, too: one loss on the labels reads both.
            return batch, label if mix is None else mix.make_rows(label)

        def find_own(step):
            return own.find(start + tf.range(step * batch_size, tf.minimum((step + 1) * batch_size, count)))

        # Where a window is an epoch, batches that are left out are not made.
        first = initial_step if source.window_count == 1 else 0
        steps = tf.data.Dataset.range(first, count_batches(count, batch_size))
        if own is not None and source.window_count > 1:
            # Of a batch across two windows, all that is one process's may be in the other.
            steps = steps.filter(lambda step: tf.reduce_any(find_own(step)))
        return steps.map(make_batch, num_parallel_calls=PARALLEL_CALLS)

    batch_count = count_batches(len(labels), batch_size)
    return make_epoch_dataset(make_epoch, batch_count, training, initial_epoch, initial_step)


def _make_role_seed(seed, role):
    return seed + _ROLES.index(role) * SEED_LIMIT


class _Share:
    """One process's rows of an epoch's batches: of a batch all processes get as many, or one row more.

    Args:
        share: `(number of the process, how many they are)`.
        samples: number of samples in an epoch.
        batch_size: samples in a whole batch.
        initial_step: number of the first batch.
    """

    def __init__(self, share, samples, batch_size, initial_step):
        self._share, self._samples, self._batch_size, self._initial_step = share, samples, batch_size, initial_step

    def find(self, places):
        """Returns which places of an epoch, int64 `(rows,)`, are the process's, bool `(rows,)`."""
        batch, row = places // self._batch_size, places % self._batch_size
        size = tf.minimum(tf.constant(self._batch_size, tf.int64), self._samples - batch * self._batch_size)
        first, end = self._bound(size)
        return (batch >= self._initial_step) & (first <= row) & (row < end)

    def cut_batches(self, rows):
        """Cuts a data set of the process's rows, in batches of any sizes, where the epoch's batches end.

        Raises:
            ValueError: batches in which some processes never have a row.
        """
        if self._batch_size < self._share[1]:
            raise ValueError(
                "A batch of streamed images is shared by at most as many processes as it has images. Received: "
                f"batch_size={self._batch_size}, share={self._share}"
            )
        left = self._samples - self._initial_step * self._batch_size
        whole, last = divmod(left, self._batch_size)
        *sizes, last = (end - first for first, end in map(self._bound, whole * [self._batch_size] + [last]))
        # A data set of unequal batches is cut by the sizes of all, and none of these may be 0.
        batches = rows.rebatch([*sizes, last] if last else sizes) if sizes or last else rows.take(0)
        if last or not left % self._batch_size:
            return batches
        nothing = [tf.zeros((0, *spec.shape[1:]), spec.dtype) for spec in tf.nest.flatten(rows.element_spec)]
        return batches.concatenate(tf.data.Dataset.from_tensors(tf.nest.pack_sequence_as(rows.element_spec, nothing)))

    def _bound(self, size):
        index, count = self._share
        return size * index // count, size * (index + 1) // count
