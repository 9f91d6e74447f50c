"""Augmentation from one seed per image, so that a view of an image can be computed again."""

import tensorflow as tf

from keras_tkd.data.permutation import permute
from keras_tkd.utils import choices

__all__ = ["AUGMENTATIONS", "apply_view", "choose_view", "crop", "crop_and_flip", "make_view_seeds"]

_SEED_COUNT = 2**31 - 1


def make_view_seeds(index, seed, epoch):
    """Makes the seeds of the views that an epoch shows.

    Args:
        index: int64 `(batch,)`, ids of the samples.
        seed: int, the run's seed.
        epoch: int or scalar tensor; where the number of views is bounded, the number of the view instead.

    Returns:
        int64 `(batch,)`, in [0, 2^31 - 1): a pure function of its arguments, different for different samples.
    """
    # The last number of a key is the stream of random numbers: 0 for seeds of views, 1 for what a view draws from its
    # seed, 2 for the order of views. Without it, equal numbers in two of these places would mean the same permutation.
    return permute(index, (seed, epoch, 0), _SEED_COUNT)


def choose_view(epoch, seed, views=None):
    """Chooses the number of the view that an epoch shows of each sample, 0, 1, ...

    Args:
        epoch: int or scalar tensor.
        seed: int, the run's seed.
        views: None for a fresh view in each epoch, whose number is the epoch's; or K >= 1, and each K epochs show the
            views 0 .. K-1 once. The first K epochs show them in this order, as they would come without a bound, and
            every further K epochs in an order of their own.

    Returns:
        Scalar, int64 for tensors: a pure function of the arguments.
    """
    if views is None:
        return epoch
    cycle, place = epoch // views, epoch % views
    shuffled = permute(tf.reshape(place, [1]), (seed, cycle, 2), views)[0]
    return tf.where(cycle == 0, tf.cast(place, tf.int64), shuffled)


def apply_view(images, index, seed, view, augment=None):
    """Returns images of samples in one of their views.

    Args:
        images: `(batch, height, width, channels)`, the images of the samples `index`.
        index: int64 `(batch,)`, ids of the samples.
        seed: int. What `augment` makes of the images depends on the seed, the ids and `view` alone.
        view: number of the view, int or scalar tensor.
        augment: a function `(images, seeds) -> images`, or None, which leaves the images as they are.
    """
    return augment(images, make_view_seeds(index, seed, view)) if augment else images


def crop_and_flip(images, seeds, *, padding=4, flip=True):
    """Crops zero-padded images at random to their own size, and mirrors half of them.

    Args:
        images: `(batch, height, width, channels)`, any dtype.
        seeds: int64 `(batch,)` in [0, 2^31 - 1), one per image. Equal seeds give equal views.
        padding: pixels of zeros on every side, >= 0; the crop's corner is uniform over `(2 * padding + 1)^2` places.
        flip: whether to mirror left and right with probability 1/2.

    Returns:
        Views of the images' shape and dtype.
    """
    images = tf.convert_to_tensor(images)
    seeds = tf.cast(seeds, tf.int64)
    height, width = images.shape[1], images.shape[2]
    places = 2 * padding + 1
    top, left, mirrored = (_draw_choice(seeds, number, choices) for number, choices in enumerate((places, places, 2)))
    # Mirroring turns the order of the columns that are gathered, which costs nothing beside the crop.
    rows = top[:, None] + tf.range(height, dtype=tf.int64)
    columns = tf.range(width, dtype=tf.int64)
    if flip:
        columns = tf.where(mirrored[:, None] == 1, columns[::-1], columns)
    columns = left[:, None] + columns
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    return tf.gather(tf.gather(padded, rows, batch_dims=1), columns, axis=2, batch_dims=1)


def _draw_choice(seeds, number, choices):
    """Makes draw number 0, 1, ... from each seed: int64 `(batch,)`, uniform in [0, choices)."""
    return permute(seeds, (0, number, 1), _SEED_COUNT) % choices


def crop(images, seeds):
    """Crops by 4 pixels without mirroring, for images such as digits whose mirror image means something else."""
    return crop_and_flip(images, seeds, flip=False)


AUGMENTATIONS = choices.check_complete(choices.AUGMENTATIONS, {"none": None, "crop": crop, "crop_flip": crop_and_flip})
