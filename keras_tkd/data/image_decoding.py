"""Image files decoded inside a `tf.data` pipeline, to the pixels that `read_image` gives."""

import os

import numpy as np
import tensorflow as tf

from keras_tkd.data.image_files import pillow_unlimited, read_image
from keras_tkd.data.stream_errors import CHANGED

__all__ = ["FileDecoder"]


class FileDecoder:
    """Decodes image files by their positions in a list: a function for `RandomAccessStream`, which resizes them.

    Files of which TensorFlow's decoder makes what `read_image` makes, which are most photographs, are decoded without
    Python, on all cores; the others, such as WebP and what EXIF turns, by `read_image` itself.

    Args:
        root: folder of the files.
        files: paths below it.
        is_plain: `(n,)`, see `ImageMeasures`.
        sizes: `(n,)`, bytes of each file when it was checked.
        channels: of the images that are returned, 1 or 3.
        max_pixels: how many pixels a file may have.
    """

    def __init__(self, root, files, is_plain, sizes, channels, max_pixels):
        self._channels, self._max_pixels = channels, max_pixels
        with tf.device("CPU:0"):
            self._root = tf.constant(os.fsencode(root))
            # Names of files are bytes, which need not be UTF-8.
            self._files = tf.constant([os.fsencode(file) for file in files])
            self._is_plain = tf.constant(np.asarray(is_plain, bool))
            self._sizes = tf.constant(np.asarray(sizes), tf.int64)

    def __call__(self, position):
        """Returns the image, uint8, of the file at a position, a scalar int64 tensor, in the size that it is stored in.

        Raises:
            tf.errors.OpError: when it runs, for a file that is another one than was checked; it names the file.
        """
        path = tf.strings.join([self._root, tf.gather(self._files, position)], os.sep)
        size = tf.gather(self._sizes, position)
        image = tf.cond(
            tf.gather(self._is_plain, position),
            lambda: self._decode_plain(path, size),
            lambda: tf.numpy_function(self._read, [path, size], tf.uint8),
        )
        return tf.ensure_shape(image, (None, None, self._channels))

    def _decode_plain(self, path, size):
        content = tf.io.read_file(path)
        # All files were decoded before the first pass: one that is damaged now was written to since.
        unchanged = tf.equal(tf.strings.length(content), tf.cast(size, tf.int32))
        with tf.control_dependencies([tf.debugging.Assert(unchanged, [CHANGED, path])]):
            return tf.io.decode_image(content, self._channels, expand_animations=False)

    def _read(self, path, size):
        path = os.fsdecode(path)
        # Also of none: what comes out of Python has no kind of its own in TensorFlow.
        if not os.path.isfile(path) or os.path.getsize(path) != size:
            raise ValueError(f"{CHANGED} {path}")
        with pillow_unlimited():
            return read_image(path, self._channels, self._max_pixels)
