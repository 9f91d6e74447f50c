"""Arrays of images whose memory TensorFlow can share."""

import math
import os

import numpy as np
import tensorflow as tf

__all__ = ["allocate_aligned", "as_tensor", "check_memory", "resize_uint8"]


def allocate_aligned(shape, dtype=np.uint8):
    """Makes an uninitialized C-ordered array whose data start at a multiple of 64 bytes.

    TensorFlow can share such memory without a copy (`tf.experimental.dlpack`); NumPy's own is aligned to 16 bytes.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def check_memory(count, image_shapes, name):
    """Raises `ValueError` for images that are more than this machine's memory holds.

    Args:
        count: number of images that are held at a time.
        image_shapes: list of `(height, width, channels)`, one for each size in which an image is held; a byte a value.
        name: what they are of, for the error.
    """
    needed = count * sum(map(math.prod, image_shapes))
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Before it is taken: the system promises more memory than there is, and ends the process when it is written to.
    if needed > available:
        (height, width, channels), *others = image_shapes
        beside = "".join(f", and of {height:,} x {width:,} for a teacher" for height, width, _ in others)
        raise ValueError(
            f"Images must fit into memory. Received: {count:,} of {height:,} x {width:,} pixels and {channels} "
            f"channel{'s' * (channels > 1)} of {name}{beside}, {needed:,} bytes, and this machine has {available:,}. "
            "Pass a smaller `image_size` (--image_size); of folders and of data sets of tensorflow-datasets, "
            "`shuffle_window` leaves most images on disk"
        )


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
