"""Which images are in memory together: a pass over the samples goes from window to window.

Who owns what:
- a source of images, `HeldImages` or an `ImageStream`, says which windows a pass consists of;
- `pipelines` cuts a window into batches, and draws extra images for anchors inside it.
"""

import typing

import tensorflow as tf

from keras_tkd.data.arrays import as_tensor
from keras_tkd.data.options import deterministic_options, steps


class Window(typing.NamedTuple):
    """Samples whose images are in memory together.

    Attributes:
        ids: int64 `(samples,)`, ascending: positions in the data set.
        rows: int64 `(samples,)`: where in `images` each of them is.
        images: `(samples, height, width, channels)`.
    """

    ids: tf.Tensor
    rows: tf.Tensor
    images: tf.Tensor

    def images_of(self, places):
        """The images of the samples `ids[places]`."""
        return tf.gather(self.images, tf.gather(self.rows, places))


class ImageSource:
    """Where images come from.

    Attributes:
        window_count: windows in a pass.
        window_size: samples in a window; the last of a pass may have fewer.
    """

    def windows(self, seed=None):
        """The windows of a pass, a dataset; `seed`, a tensor of two integers, decides their order, None is by ids."""
        raise NotImplementedError

    def batches(self, batch_size, first=0):
        """A dataset of `(ids, images)` in the order of ids, from the batch of number `first` on."""
        raise NotImplementedError


class HeldImages(ImageSource):
    """Images in memory: a single window holds them all."""

    window_count = 1

    def __init__(self, images):
        with tf.device("CPU:0"):
            self._images = as_tensor(images)
        self.window_size = len(images)

    def windows(self, seed=None):
        rows = tf.range(self.window_size, dtype=tf.int64)
        return tf.data.Dataset.from_tensors(Window(rows, rows, self._images))

    def batches(self, batch_size, first=0):
        count = tf.constant(self.window_size, tf.int64)

        def batch(number):
            ids = tf.range(number * batch_size, tf.minimum((number + 1) * batch_size, count))
            return ids, tf.gather(self._images, ids)

        return tf.data.Dataset.range(first, steps(self.window_size, batch_size)).map(batch)


def source_of(images):
    """What a pipeline reads: a source as it is, an array held in memory."""
    return images if isinstance(images, ImageSource) else HeldImages(images)


def in_order(images, batch_size):
    """Yields all images of an array or of a source in the order of their ids, `batch_size` at a time, as arrays."""
    if isinstance(images, ImageSource):
        batches = images.batches(batch_size).prefetch(1).with_options(deterministic_options())
        yield from (batch for _, batch in batches.as_numpy_iterator())
    else:
        yield from (images[start : start + batch_size] for start in range(0, len(images), batch_size))
