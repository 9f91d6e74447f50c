"""Arrays of images whose memory TensorFlow can share."""

import math

import numpy as np
import tensorflow as tf

__all__ = ["allocate_aligned", "as_tensor", "resize_uint8"]


def allocate_aligned(shape, dtype=np.uint8):
    """Makes an uninitialized C-ordered array whose data start at a multiple of 64 bytes.

    TensorFlow can share such memory without a copy (`tf.experimental.dlpack`); NumPy's own is aligned to 16 bytes.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def as_tensor(array):
    """Returns a tensor of an array's values, which shares the array's memory where that is aligned, and else copies it.

    Args:
        array: anything that NumPy makes an array of.
    """
    array = np.ascontiguousarray(array) if isinstance(array, np.ndarray) else np.asarray(array)
    # From unaligned memory, `from_dlpack` does not raise: it ends the process.
    if array.ctypes.data % 64 == 0 and array.flags.writeable and array.size:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array)


def resize_uint8(images, size):
    """Resizes images for storage: bilinear, antialiased, and rounded to uint8.

    `keras_tkd.utils.resizing` resizes for a model instead, in float32.

    Args:
        images: `(height, width, channels)` or with a batch before, values 0..255.
        size: `(height, width)` in pixels.
    """
    resized = tf.image.resize(images, size, method="bilinear", antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)
