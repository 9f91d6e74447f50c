"""Arrays that TensorFlow can share."""

import math

import numpy as np
import tensorflow as tf


def aligned_empty(shape, dtype=np.uint8):
    """An uninitialized C-ordered array whose data start at a multiple of 64 bytes.

    TensorFlow can share such memory without a copy (`tf.experimental.dlpack`); numpy's own is aligned to 16.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def resize(images, size):
    resized = tf.image.resize(images, size, method="bilinear", antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def as_tensor(images):
    """A tensor of the array's values: of the same memory where it is aligned as TensorFlow needs it, else a copy."""
    images = np.ascontiguousarray(images) if isinstance(images, np.ndarray) else np.asarray(images)
    if images.ctypes.data % 64 == 0 and images.flags.writeable and images.size:
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return tf.constant(images)
