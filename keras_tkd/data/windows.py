"""Which images are in memory together: a pass over the samples goes from window to window.

Who owns what:
- a source of images, `HeldImages` or an `ImageStream`, says which windows a pass consists of;
- `pipelines` cuts a window into batches, and draws companions for anchors inside it.
"""

import os
import typing

import numpy as np
import tensorflow as tf

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# Each call makes a whole batch, and as many batches are in memory: hence a bound where there are many cores, of which a
# few feed any student (two crop and mirror 130,000 images/s of CIFAR-10's size, benchmarks/README.md).
PARALLEL_CALLS = min(CPUS, 8)
PREFETCHED_BATCHES = 4


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
        batches = images.batches(batch_size).prefetch(1).with_options(steady())
        yield from (batch for _, batch in batches.as_numpy_iterator())
    else:
        yield from (images[start : start + batch_size] for start in range(0, len(images), batch_size))


def steps(count, batch_size):
    """The number of batches of so many samples, of which the last may be smaller."""
    return -(-count // batch_size)


def steady():
    """Options of every pipeline: batches in their order, and no autotuning."""
    options = tf.data.Options()
    # With it, a pass can end only when the tuner's pause does, and its pauses double: up to 1.3, 2.5, 5.1 ... seconds
    # (benchmarks/choices.py measures epochs with and without).
    options.autotune.enabled = False
    options.deterministic = True
    return options


def as_tensor(images):
    """A tensor of the array's values: of the same memory where it is aligned as TensorFlow needs it, else a copy."""
    images = np.ascontiguousarray(images) if isinstance(images, np.ndarray) else np.asarray(images)
    if images.ctypes.data % 64 == 0 and images.flags.writeable and images.size:
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return tf.constant(images)
