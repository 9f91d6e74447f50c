"""Operations on the places of pixels, from one seed per image: crops, mirroring, Cutout.

Nothing here is computed by a function whose last bit depends on where in a tensor a number stands, as `exp` of a
vectorized library may: an image's view is the same alone and in any batch.
"""

import numpy as np
import tensorflow as tf

from keras_tkd.data.draws import CROP, CUTOUT, FLIP, RESIZED_CROP, draw_choice, draw_fraction
from keras_tkd.data.options import as_written

__all__ = [
    "crop",
    "crop_and_flip",
    "cutout",
    "draw_crop_boxes",
    "horizontal_flip",
    "make_box_mask",
    "resized_crop",
    "scale_pixels",
]

# Ratios of width to height, evenly spaced on a logarithmic scale. The middle one is 1.
_RATIOS = np.exp(np.linspace(np.log(3 / 4), np.log(4 / 3), 1025))


@as_written
def crop_and_flip(images, seeds, *, padding=4, flip=True, drawn_for=None):
    """Crops zero-padded images at random to their own size, and mirrors half of them.

    Args:
        images: `(batch, height, width, channels)`, any dtype.
        seeds: int64 `(batch,)` in [0, 2^31 - 1), one per image. Equal seeds give equal views.
        padding: pixels of zeros on every side, >= 0; the crop's corner is uniform over `(2 * padding + 1)^2` places.
        flip: whether to mirror left and right with probability 1/2.
        drawn_for: `(height, width)` of the images in whose pixels `padding` is, and places are drawn: images of another
            size show the same part, to half a pixel of theirs. None for their own.

    Returns:
        Views of the images' shape and dtype.
    """
    images = tf.convert_to_tensor(images)
    seeds = tf.cast(seeds, tf.int64)
    height, width = images.shape[1], images.shape[2]
    sizes = tuple(zip((height, width), drawn_for or (height, width), strict=True))
    down, right = (scale_pixels(padding, *both) for both in sizes)
    # By how much the crop is off the middle: scaled, it is never more than the padding, scaled.
    offsets = (draw_choice(seeds, CROP + axis, 2 * padding + 1) - padding for axis in range(2))
    top, left = (
        pad + scale_pixels(offset, *both) for pad, offset, both in zip((down, right), offsets, sizes, strict=True)
    )
    # Mirroring turns the order of the columns that are gathered, which costs nothing beside the crop.
    rows = top[:, None] + tf.range(height, dtype=tf.int64)
    columns = tf.range(width, dtype=tf.int64)
    if flip:
        columns = tf.where(draw_choice(seeds, FLIP, 2)[:, None] == 1, columns[::-1], columns)
    columns = left[:, None] + columns
    padded = tf.pad(images, [[0, 0], [down, down], [right, right], [0, 0]])
    return tf.gather(tf.gather(padded, rows, batch_dims=1), columns, axis=2, batch_dims=1)


@as_written
def crop(images, seeds, *, padding=4, drawn_for=None):
    """Crops without mirroring, for images such as digits whose mirror image means something else; see `crop_and_flip`.

    Args:
        images, seeds, padding, drawn_for: as in `crop_and_flip`.

    Returns:
        Views of the images' shape and dtype.
    """
    return crop_and_flip(images, seeds, padding=padding, flip=False, drawn_for=drawn_for)


@as_written
def horizontal_flip(images, seeds):
    """Mirrors half of the images left and right.

    Args:
        images, seeds: as in `crop_and_flip`, which mirrors the images of the same seeds.

    Returns:
        Views of the images' shape and dtype.
    """
    images = tf.convert_to_tensor(images)
    mirrored = draw_choice(tf.cast(seeds, tf.int64), FLIP, 2) == 1
    return tf.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


@as_written
def resized_crop(images, seeds, *, area=0.08, drawn_for=None):
    """Crops a part of each image at random, and enlarges it to the image's own size (Szegedy et al., 2015).

    The part's share of the area is uniform in [`area`, 1]; its ratio of width to height is log-uniform over those of
    3/4 .. 4/3 with which it fits into the image, and its corner uniform over the places where it does. Enlarging is
    bilinear; pixels of whole numbers are rounded. Where others draw shares and ratios until they fit, every draw fits
    here: large shares are not rarer than small ones.

    Args:
        images, seeds, drawn_for: as in `crop_and_flip`.
        area: the smallest share of an image's area, in (0, 1].

    Returns:
        Views of the images' shape and dtype.
    """
    images = tf.convert_to_tensor(images)
    sizes = tuple(images.shape[1:3])
    drawn_sizes = drawn_for or sizes
    top, left, rows, columns = draw_crop_boxes(seeds, *drawn_sizes, area)
    if drawn_for:
        top, rows = _scale_part(top, rows, sizes[0], drawn_sizes[0])
        left, columns = _scale_part(left, columns, sizes[1], drawn_sizes[1])
    pixels = images if images.dtype.is_floating else tf.cast(images, tf.float32)
    pixels = _enlarge(_enlarge(pixels, top, rows, 1), left, columns, 2)
    return pixels if images.dtype.is_floating else tf.cast(tf.round(pixels), images.dtype)


def scale_pixels(number, size, drawn_size):
    """Returns a number of pixels of an axis of `drawn_size` in those of an axis of `size`, rounded; integers."""
    return (2 * number * size + drawn_size) // (2 * drawn_size)


def _scale_part(start, length, size, drawn_size):
    first, end = (scale_pixels(place, size, drawn_size) for place in (start, start + length))
    # Of a smaller image one pixel is left, however small the part.
    length = tf.maximum(end - first, 1)
    return tf.minimum(first, size - length), length


def draw_crop_boxes(seeds, height, width, area):
    """Draws the part of each image that `resized_crop` shows.

    Args:
        seeds: int64 `(batch,)`.
        height, width: of the images, in pixels.
        area: the smallest share of the area.

    Returns:
        `(top, left, rows, columns)`, int64 `(batch,)` each: the part's corner and its size.
    """
    seeds = tf.cast(seeds, tf.int64)
    pixels = (area + (1 - area) * draw_fraction(seeds, RESIZED_CROP)) * (height * width)
    # Of width / height = r the part has the width sqrt(pixels * r) and the height sqrt(pixels / r).
    first = tf.searchsorted(_RATIOS, pixels / height**2)
    last = tf.searchsorted(_RATIOS, width**2 / pixels, side="right") - 1
    # In an image far from square no ratio fits a large part, which then takes the nearest, and all that there is.
    first = tf.cast(tf.clip_by_value(first, 0, len(_RATIOS) - 1), tf.int64)
    last = tf.maximum(tf.cast(last, tf.int64), first)
    ratio = tf.gather(_RATIOS, first + draw_choice(seeds, RESIZED_CROP + 1, last - first + 1))
    rows = tf.clip_by_value(tf.cast(tf.round(tf.sqrt(pixels / ratio)), tf.int64), 1, height)
    columns = tf.clip_by_value(tf.cast(tf.round(tf.sqrt(pixels * ratio)), tf.int64), 1, width)
    top = draw_choice(seeds, RESIZED_CROP + 2, height - rows + 1)
    left = draw_choice(seeds, RESIZED_CROP + 3, width - columns + 1)
    return top, left, rows, columns


def _enlarge(pixels, start, length, axis):
    """Resamples `length` pixels from `start` on along an axis to the size of the whole axis."""
    size = pixels.shape[axis]
    start, length = (tf.cast(number, tf.float64)[:, None] for number in (start, length))
    centres = tf.range(size, dtype=tf.float64) + 0.5
    # Pixels outside of the part do not show: at its edges the outermost pixel goes on.
    places = tf.clip_by_value(start + centres * length / size - 0.5, start, start + length - 1)
    low = tf.floor(places)
    share = tf.cast(places - low, pixels.dtype)
    share = share[:, :, None, None] if axis == 1 else share[:, None, :, None]
    low, high = (tf.cast(place, tf.int64) for place in (low, tf.minimum(low + 1, start + length - 1)))
    below, above = (tf.gather(pixels, place, axis=axis, batch_dims=1) for place in (low, high))
    return below + (above - below) * share


@as_written
def cutout(images, seeds, *, size=0.5, drawn_for=None):
    """Sets a square in each image to zero, at a random place (Cutout, DeVries & Taylor, 2017; random erasing).

    The square's centre is uniform over all pixels, so that a part of the square may lie outside of the image.

    Args:
        images, seeds, drawn_for: as in `crop_and_flip`.
        size: the square's side as a share of the shorter side of the image, > 0.

    Returns:
        Views of the images' shape and dtype.
    """
    images, seeds = tf.convert_to_tensor(images), tf.cast(seeds, tf.int64)
    height, width = images.shape[1], images.shape[2]
    drawn_height, drawn_width = drawn_for or (height, width)
    side = max(1, round(size * min(drawn_height, drawn_width)))
    top = draw_choice(seeds, CUTOUT, drawn_height) - side // 2
    left = draw_choice(seeds, CUTOUT + 1, drawn_width) - side // 2
    top, bottom = (scale_pixels(edge, height, drawn_height) for edge in (top, top + side))
    left, right = (scale_pixels(edge, width, drawn_width) for edge in (left, left + side))
    inside = make_box_mask(top, left, bottom, right, height, width)
    return tf.where(inside, tf.zeros_like(images), images)


def make_box_mask(top, left, bottom, right, height, width):
    """Returns which pixels lie in each image's box, bool `(batch, height, width, 1)`.

    Args:
        top, left, bottom, right: int64 `(batch,)`, the first row and column of the box, and the first behind it; they
            may lie outside of the image.
        height, width: of the images.
    """
    rows, columns = tf.range(height, dtype=tf.int64), tf.range(width, dtype=tf.int64)
    in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
    in_columns = (columns >= left[:, None]) & (columns < right[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
