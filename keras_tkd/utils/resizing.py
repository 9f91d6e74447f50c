"""Images in the height and width that a model takes."""

import keras
import tensorflow as tf

__all__ = ["find_model_size", "resize_float32", "resize_for_model"]


def find_model_size(model, shape):
    """Returns the `(height, width)` to which `model` needs images resized; None where they fit.

    Args:
        model: a built `keras.Model`.
        shape: shape of a batch of images, `(batch, height, width, channels)`.
    """
    expected = getattr(model, "input_shape", None) if model.built else None
    if not isinstance(expected, tuple) or not isinstance(shape, (tuple, list)) or len(expected) != 4 or len(shape) != 4:
        return None
    # A model that leaves one side open takes any size: resizing would distort what it can see as it is.
    sizes = [(a, b) for a, b in zip(expected[1:3], shape[1:3], strict=True) if a is not None]
    return tuple(expected[1:3]) if len(sizes) == 2 and any(a != b for a, b in sizes) else None


def resize_for_model(model, images):
    """Returns `images` in the height and width that `model` takes; other inputs than images are left as they are."""
    size = None if keras.tree.is_nested(images) else find_model_size(model, tuple(images.shape))
    return resize_float32(images, size) if size else images


def resize_float32(images, size):
    """Resizes images for a model: bilinear, antialiased, and float32 in the same range of values.

    `keras_tkd.data.arrays.resize_uint8` rounds them for storage instead.

    Args:
        images: `(batch, height, width, channels)`.
        size: `(height, width)` in pixels.
    """
    return tf.image.resize(images, size, antialias=True)
