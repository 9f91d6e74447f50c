"""Sources of a pipeline's images, from which a pass reads one window of images after the other.

Who owns what:
- a source of images is whole, `InMemoryImages`, or divides a pass into windows, as an `ImageStream` does;
- `anchors` cuts a window into batches, and draws extra images for anchors inside it.
"""

import typing

import numpy as np
import tensorflow as tf

from keras_tkd.data.arrays import as_tensor
from keras_tkd.data.options import count_batches, deterministic_options

__all__ = ["ImageSource", "InMemoryImages", "Window", "as_source", "iterate_batches", "take_images"]


class Window(typing.NamedTuple):
    """Samples whose images are in memory together.

    Attributes:
        ids: int64 `(samples,)`, ascending: positions in the data set.
        rows: int64 `(samples,)`: the row of `images` that is each sample's.
        images: `(samples, height, width, channels)`.
        teacher_images: what a teacher sees in place of these, a tuple of one tensor; empty where it sees the same.
    """

    ids: tf.Tensor
    rows: tf.Tensor
    images: tf.Tensor
    teacher_images: tuple[tf.Tensor, ...] = ()

    def gather_images(self, places):
        """Returns the images of the samples `ids[places]`."""
        return tf.gather(self.images, tf.gather(self.rows, places))

    def gather_all(self, places):
        """Returns the images of the samples `ids[places]`, and after them what a teacher sees where that is another."""
        rows = tf.gather(self.rows, places)
        return [tf.gather(images, rows) for images in (self.images, *self.teacher_images)]


class ImageSource:
    """Images for a pipeline, in memory or elsewhere.

    Attributes:
        window_count: number of windows in a pass.
        window_size: samples in a window; the last one of a pass may have fewer.
        whole: the `Window` of all samples, where they are in memory; None elsewhere.
    """

    whole = None

    def windows(self, seed=None, spread=False, beside=None):
        """Makes the data set of a pass's windows, of a source that has no `whole`.

        Args:
            seed: tensor of two integers that decides their order; None keeps the samples in the order of ids.
            spread: True asks for windows without a seed that each hold samples from all of the data set, where a source
                can make such windows: each then has its samples in the order of ids.
            beside: stream of the same samples in another size, for streams alone: its images become the windows'
                `teacher_images`. None for none.

        Returns:
            `tf.data.Dataset` of `Window`.
        """
        raise NotImplementedError

    def encoded_windows(self, seed=None, spread=False):
        """Makes what `windows` makes, of a source whose images are decoded, with what is stored in place of images.

        `decode_window` makes a window of it of which no image is decoded that is not gathered.
        """
        raise NotImplementedError

    def check_beside(self, other):
        """Raises `ValueError` unless the stream `other` can stand beside this source in `windows`."""
        raise ValueError(
            "With images in memory, `teacher_images` must be an array. Received: a stream of "
            f"{len(other)} images. Load both with `shuffle_window`, or both without"
        )

    def batches(self, batch_size, first=0, every=1):
        """Makes a data set of `(ids, images)` in the order of ids.

        Args:
            batch_size: images per batch.
            first: number of the batch to begin with, also a scalar tensor.
            every: 1 makes all batches from there on, 2 every other one, and so on.
        """
        raise NotImplementedError


class InMemoryImages(ImageSource):
    """Images in memory, all of them in one window, `whole`.

    Args:
        images: array `(samples, ...)`; its memory is shared where it is aligned.
    """

    window_count = 1

    def __init__(self, images):
        with tf.device("CPU:0"):
            self._images = as_tensor(images)
            rows = tf.range(len(images), dtype=tf.int64)
        self.window_size = len(images)
        self.whole = Window(rows, rows, self._images)

    def gather_images(self, ids):
        """Returns the images of the samples `ids`."""
        return tf.gather(self._images, ids)

    def batches(self, batch_size, first=0, every=1):
        count = tf.constant(self.window_size, tf.int64)

        def make_batch(number):
            ids = tf.range(number * batch_size, tf.minimum((number + 1) * batch_size, count))
            return ids, self.gather_images(ids)

        return tf.data.Dataset.range(first, count_batches(self.window_size, batch_size), every).map(make_batch)


def as_source(images):
    """Returns a source as it is, and an array as `InMemoryImages`."""
    return images if isinstance(images, ImageSource) else InMemoryImages(images)


def iterate_batches(images, batch_size, first=0, end=None):
    """Yields all images of an array or of a source, in the order of their ids, as arrays of `batch_size` images.

    Args:
        images: array or source of images.
        batch_size: images per batch; the last one may have fewer.
        first, end: numbers of the batches to begin with, and to end before; None for none.
    """
    end = count_batches(len(images), batch_size) if end is None else end
    if isinstance(images, ImageSource):
        batches = images.batches(batch_size, first).take(end - first).prefetch(1)
        yield from (batch for _, batch in batches.with_options(deterministic_options()).as_numpy_iterator())
    else:
        yield from (images[batch_size * number : batch_size * (number + 1)] for number in range(first, end))


def take_images(images, ids, batch_size=256):
    """Returns some images of an array or of a source, by one pass over all: of a stream, single ones are far to seek.

    Args:
        images: array or source of images.
        ids: ascending positions.
        batch_size: how many images are in memory at once beside those that are taken.
    """
    rows, start = [], 0
    for batch in iterate_batches(images, batch_size):
        rows.append(batch[ids[(ids >= start) & (ids < start + len(batch))] - start])
        start += len(batch)
    return np.concatenate(rows)
