"""Operations on the values of uint8 pixels, image by image, as Pillow defines them.

Between two operations pixels are whole numbers again, and means are of whole numbers: so an image's view is the same
to the bit alone and in any batch, in whatever order a machine adds.
"""

import tensorflow as tf

from keras_tkd.data.draws import COLOR_JITTER, draw_fraction
from keras_tkd.data.options import as_written

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_saturation",
    "adjust_sharpness",
    "autocontrast",
    "check_uint8",
    "color_jitter",
    "equalize",
    "posterize",
    "solarize",
]


@as_written
def color_jitter(images, seeds, *, strength=0.4):
    """Changes brightness, then contrast, then saturation, each by a random factor; the hue stays.

    The factors are uniform in [1 - `strength`, 1 + `strength`], independent of each other.

    Args:
        images: uint8 `(batch, height, width, channels)`, of 1 or 3 channels; one channel has no saturation.
        seeds: int64 `(batch,)` in [0, 2^31 - 1), one per image. Equal seeds give equal views.
        strength: in [0, 1].

    Returns:
        Views of the images' shape, uint8.

    Raises:
        ValueError: images of another dtype or number of channels.
    """
    images, seeds = check_uint8(images, "color_jitter"), tf.cast(seeds, tf.int64)
    for number, adjust in enumerate((adjust_brightness, adjust_contrast, adjust_saturation)):
        factors = 1 + strength * (2 * draw_fraction(seeds, COLOR_JITTER + number) - 1)
        images = adjust(images, tf.cast(factors, tf.float32))
    return images


def check_uint8(images, name):
    """Returns images as a tensor.

    Raises:
        ValueError: images that the operation called `name` does not read.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"Operation '{name}' reads pixels of uint8, 0 to 255, in 1 or 3 channels. Received: {images.dtype.name}, "
            f"shape {tuple(images.shape)}. Give images as uint8, and let the models scale them (`Rescaling(1 / 255)`)"
        )
    return images


# Each takes images and a factor per image, float32 `(batch,)`: 1 leaves the image, 0 takes all of a quality away.


def adjust_brightness(images, factors):
    """Multiplies pixels by a factor per image: 0 is black."""
    return _blend(tf.zeros_like(images), images, factors)


def adjust_contrast(images, factors):
    """Moves pixels from the mean grey of their image, or towards it, by a factor per image."""
    grey = tf.cast(_to_grey(images), tf.int64)
    count = images.shape[1] * images.shape[2]
    # A sum of whole numbers is exact in whatever order a machine adds.
    mean = (2 * tf.reduce_sum(grey, axis=(1, 2, 3), keepdims=True) + count) // (2 * count)
    return _blend(tf.cast(mean, images.dtype), images, factors)


def adjust_saturation(images, factors):
    """Moves pixels from their own grey, or towards it, by a factor per image; images of one channel stay."""
    return images if images.shape[-1] == 1 else _blend(_to_grey(images), images, factors)


def adjust_sharpness(images, factors):
    """Moves pixels from those of a smoothed image, or towards them, by a factor per image; the border stays."""
    if min(images.shape[1:3]) < 3:
        return images
    whole = tf.cast(images, tf.int32)
    height, width = images.shape[1], images.shape[2]
    shifted = [whole[:, i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    inner = (2 * (tf.add_n(shifted) + 4 * shifted[4]) + 13) // 26
    # Inside the border the smoothed image, on it the image itself.
    padding = [[0, 0], [1, 1], [1, 1], [0, 0]]
    inside = tf.pad(tf.ones_like(inner, tf.bool), padding)
    return _blend(tf.where(inside, tf.cast(tf.pad(inner, padding), images.dtype), images), images, factors)


def _to_grey(images):
    if images.shape[-1] == 1:
        return images
    # The luma of ITU-R 601, in 2^-16.
    weighted = tf.reduce_sum(tf.cast(images, tf.int32) * [19595, 38470, 7471], axis=-1, keepdims=True)
    return tf.cast((weighted + 2**15) // 2**16, images.dtype)


def _blend(first, second, factors):
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    blended = first + factors[:, None, None, None] * (second - first)
    return tf.cast(tf.round(tf.clip_by_value(blended, 0.0, 255.0)), tf.uint8)


def posterize(images, bits):
    """Keeps the highest `bits` bits of each pixel."""
    return tf.bitwise.bitwise_and(images, tf.constant(256 - 2 ** (8 - bits), tf.uint8))


def solarize(images, threshold):
    """Inverts pixels from `threshold` on."""
    return tf.where(tf.cast(images, tf.int32) < threshold, images, 255 - images)


def autocontrast(images):
    """Spreads each channel of an image over 0 .. 255, from its darkest to its brightest pixel."""
    whole = tf.cast(images, tf.int32)
    least, largest = (reduce(whole, axis=(1, 2), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    spread = (whole - least) * 255 // tf.maximum(largest - least, 1)
    return tf.where(largest > least, tf.cast(spread, images.dtype), images)


def equalize(images):
    """Makes the values of each channel of an image as equally frequent as a function of the values can."""
    count, channels = tf.shape(images)[0], images.shape[-1]
    # A histogram, and then a table, for each channel of each image; all of them in one row after another.
    rows = tf.range(count)[:, None, None, None] * channels + tf.range(channels)
    places = rows * 256 + tf.cast(images, tf.int32)
    entries = count * channels * 256
    histograms = tf.math.unsorted_segment_sum(tf.ones_like(places), places, entries)
    histograms = tf.reshape(histograms, [-1, 256])
    pixels = images.shape[1] * images.shape[2]
    # The count of the brightest value that there is.
    brightest = tf.reduce_max(tf.where(histograms > 0, tf.range(256), 0), axis=1)
    last = tf.gather(histograms, brightest, batch_dims=1)
    step = ((pixels - last) // 255)[:, None]
    below = tf.cumsum(histograms, axis=1, exclusive=True)
    table = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    # Of a single value, or of too few pixels, a channel stays as it is.
    table = tf.where(step > 0, table, tf.range(256))
    return tf.cast(tf.gather(tf.reshape(table, [-1]), places), images.dtype)
