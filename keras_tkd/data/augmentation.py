"""Augmentation from one seed per image, so that a view of an image can be computed again."""

import functools

import tensorflow as tf

from keras_tkd.data.colors import color_jitter
from keras_tkd.data.crops import crop, crop_and_flip, cutout, horizontal_flip, resized_crop
from keras_tkd.data.draws import SEED_COUNT
from keras_tkd.data.permutation import permute
from keras_tkd.data.randaugment import rand_augment
from keras_tkd.utils import choices
from keras_tkd.utils.augmentation_names import parse_augmentation

__all__ = [
    "AUGMENTATIONS",
    "apply_view",
    "choose_view",
    "compose",
    "make_augmentation",
    "make_view_seeds",
]


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
    # seed, 2 for the order of views, 3 for the samples that a view is mixed with. Without it, equal numbers in two of
    # these places would mean the same permutation.
    return permute(index, (seed, epoch, 0), SEED_COUNT)


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


def compose(*operations):
    """Makes one augmentation of several, which act in the order given on the same seeds.

    Args:
        *operations: functions `(images, seeds) -> images`, such as `resized_crop`, each at most once: each draws from a
            seed by numbers of its own, and the same function would draw the same again.

    Returns:
        A function `(images, seeds) -> images`.
    """
    # A `partial`, so that a teacher cache can say in words of which operations its views are.
    return functools.partial(_apply_in_turn, operations=operations)


def _apply_in_turn(images, seeds, *, operations):
    for operation in operations:
        images = operation(images, seeds)
    return images


def make_augmentation(name, drawn_for=None):
    """Makes an augmentation of its name, as `--augmentation` takes it.

    Args:
        name: operations in the order in which they act, joined by `+`, each a name in `AUGMENTATIONS` with its
            arguments: `"resized_crop@area=0.25+horizontal_flip"`.
        drawn_for: `(height, width)` of the images for which places and lengths in pixels are drawn; images of another
            size show the same part, to half a pixel of theirs. None for the images' own size.

    Returns:
        A function `(images, seeds) -> images`; None for `"none"`.

    Raises:
        ValueError: an operation or an argument that there is not, a value out of its range, an operation twice.
    """
    operations = []
    for operation, arguments in parse_augmentation(name):
        function = AUGMENTATIONS[operation]
        if drawn_for is not None and operation in _OF_PLACES:
            arguments = arguments | {"drawn_for": tuple(drawn_for)}
        operations.append(functools.partial(function, **arguments) if arguments else function)
    return compose(*operations) if len(operations) > 1 else next(iter(operations), None)


AUGMENTATIONS = choices.check_complete(
    choices.AUGMENTATIONS,
    {
        "none": None,
        "crop": crop,
        "crop_flip": crop_and_flip,
        "horizontal_flip": horizontal_flip,
        "resized_crop": resized_crop,
        "color_jitter": color_jitter,
        "rand_augment": rand_augment,
        "cutout": cutout,
    },
)
# Those that draw places and lengths in pixels; the others draw shares, or nothing of places.
_OF_PLACES = ("crop", "crop_flip", "resized_crop", "cutout")
