"""RandAugment: operations drawn for each image, all of one magnitude."""

import functools
import math

import numpy as np
import tensorflow as tf

from keras_tkd.data import colors
from keras_tkd.data.draws import RAND_AUGMENT, draw_choice
from keras_tkd.data.options import as_written

__all__ = ["OPERATIONS", "rand_augment"]

_LARGEST_MAGNITUDE = 30


@as_written
def rand_augment(images, seeds, *, operations=2, magnitude=9):
    """Applies operations to each image, drawn from the 14 of `OPERATIONS` (RandAugment, Cubuk et al., 2020).

    Each of `operations` in turn is drawn uniformly and independently, so that an image may get one twice; all have the
    same `magnitude`, and the sign of those that have one is drawn for each image.

    Args:
        images: uint8 `(batch, height, width, channels)`, of 1 or 3 channels.
        seeds: int64 `(batch,)` in [0, 2^31 - 1), one per image. Equal seeds give equal views.
        operations: how many are applied one after another, >= 1.
        magnitude: from 0 to 30.

    Returns:
        Views of the images' shape, uint8.

    Raises:
        ValueError: images of another dtype or number of channels.
    """
    images, seeds = colors.check_uint8(images, "rand_augment"), tf.cast(seeds, tf.int64)
    shape = images.shape
    for number in range(RAND_AUGMENT, RAND_AUGMENT + 2 * operations, 2):
        chosen = draw_choice(seeds, number, len(OPERATIONS))
        signs = 1 - 2 * draw_choice(seeds, number + 1, 2)
        # Each image goes through the one operation that it drew, and not through all of them.
        rows = [tf.where(chosen == place)[:, 0] for place in range(len(OPERATIONS))]
        parts = [
            operation(tf.gather(images, own), tf.gather(signs, own), magnitude / _LARGEST_MAGNITUDE)
            for operation, own in zip(OPERATIONS.values(), rows, strict=True)
        ]
        rows = [tf.cast(own, tf.int32) for own in rows]
        images = tf.ensure_shape(tf.dynamic_stitch(rows, parts), shape)
    return images


# Each operation takes images, a sign of 1 or -1 for each, and the magnitude as a share of the largest.


def _keep(images, signs, share):
    return images


def _transform(images, signs, share, *, make):
    """Moves pixels by an affine map, bilinearly; what comes from outside of the image is 0.

    Args:
        make: function of the signed share that gives the map from an output's place (x, y), counted from the middle, to
            that in the input, as `((xx, xy, x), (yx, yy, y))`, the last in shares of width and height.
    """
    height, width = images.shape[1], images.shape[2]
    # One map for each sign, made in double precision once, whatever the machine's own sine is.
    maps = tf.constant([_make_projection(make(sign * share), height, width) for sign in (-1, 1)], tf.float32)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.gather(maps, (signs + 1) // 2),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.cast(tf.round(moved), images.dtype)


def _make_projection(affine, height, width):
    (xx, xy, x), (yx, yy, y) = affine
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    linear = np.array([[xx, xy], [yx, yy]])
    offset = middle - linear @ middle + [x * width, y * height]
    return [*linear[0], offset[0], *linear[1], offset[1], 0.0, 0.0]


def _rotate(share):
    angle = math.radians(30 * share)
    return (math.cos(angle), -math.sin(angle), 0), (math.sin(angle), math.cos(angle), 0)


def _adjust(images, signs, share, *, adjust):
    return adjust(images, 1 + 0.9 * share * tf.cast(signs, tf.float32))


# The space of torchvision's RandAugment: largest shear 0.3, translation 150 / 331, angle 30 degrees, factor 1 +- 0.9.
OPERATIONS = {
    "identity": _keep,
    "shear_x": functools.partial(_transform, make=lambda share: ((1, 0.3 * share, 0), (0, 1, 0))),
    "shear_y": functools.partial(_transform, make=lambda share: ((1, 0, 0), (0.3 * share, 1, 0))),
    "translate_x": functools.partial(_transform, make=lambda share: ((1, 0, 150 / 331 * share), (0, 1, 0))),
    "translate_y": functools.partial(_transform, make=lambda share: ((1, 0, 0), (0, 1, 150 / 331 * share))),
    "rotate": functools.partial(_transform, make=_rotate),
    "brightness": functools.partial(_adjust, adjust=colors.adjust_brightness),
    "saturation": functools.partial(_adjust, adjust=colors.adjust_saturation),
    "contrast": functools.partial(_adjust, adjust=colors.adjust_contrast),
    "sharpness": functools.partial(_adjust, adjust=colors.adjust_sharpness),
    "posterize": lambda images, signs, share: colors.posterize(images, 8 - round(4 * share)),
    "solarize": lambda images, signs, share: colors.solarize(images, round(256 * (1 - share))),
    "autocontrast": lambda images, signs, share: colors.autocontrast(images),
    "equalize": lambda images, signs, share: colors.equalize(images),
}
