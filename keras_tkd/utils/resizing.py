"""Images in the height and width that a model takes."""

import keras
import tensorflow as tf


def other_size(model, shape):
    """`(height, width)` that `model` takes where images of `shape` have another size; None where nothing is to be done.

    Args:
        model: a built `keras.Model`.
        shape: shape of a batch of images, `(batch, height, width, channels)`.
    """
    expected = getattr(model, "input_shape", None) if model.built else None
    if not isinstance(expected, tuple) or not isinstance(shape, (tuple, list)) or len(expected) != 4 or len(shape) != 4:
        return None
    sizes = [(a, b) for a, b in zip(expected[1:3], shape[1:3], strict=True) if a is not None]
    return tuple(expected[1:3]) if len(sizes) == 2 and any(a != b for a, b in sizes) else None


def resized(model, images):
    """`images` in the height and width that `model` takes; inputs that are no images are left as they are."""
    size = None if keras.tree.is_nested(images) else other_size(model, tuple(images.shape))
    return resize(images, size) if size else images


def resize(images, size):
    """Images resized to `size`, `(height, width)`: bilinear, smoothed where they shrink. float32, in the same range."""
    return tf.image.resize(images, size, antialias=True)
