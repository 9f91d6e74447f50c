"""Pixels of 0..255, scaled in the ways that published models were trained with."""

import keras

from keras_tkd.utils import choices

__all__ = ["PREPROCESSING", "scale_pixels"]


def scale_pixels(pixels, mode):
    """Returns `pixels` of a graph scaled by a mode of `PREPROCESSING`; as they are for `"none"`."""
    scale = PREPROCESSING[mode]
    return pixels if scale is None else scale(pixels)


def _rescale(x, scale, offset=0.0):
    # float32 under any policy: bfloat16 would round 1 / 255 itself, and darken every image by 0.4 %.
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="pixel_scaling")(x)


def _unit(x):
    return _rescale(x, 1 / 255)


def _tf(x):
    return _rescale(x, 1 / 127.5, -1.0)


def _torch(x):
    # Mean and deviation of each channel in 0..1, both written for pixels of 0..255: one affine map.
    deviation = (0.229, 0.224, 0.225)
    scale = [1 / (255 * d) for d in deviation]
    return _rescale(x, scale, [-m / d for m, d in zip((0.485, 0.456, 0.406), deviation, strict=True)])


def _caffe(x):
    # Channels are reversed first: Caffe's models were trained on images as OpenCV reads them.
    return _rescale(keras.ops.flip(x, axis=-1), 1.0, [-103.939, -116.779, -123.68])


# "tf", "torch" and "caffe" are Keras's names of them; "imagenet" is what PyTorch's users call "torch".
PREPROCESSING = choices.check_complete(
    choices.PREPROCESSING,
    {"none": None, "unit": _unit, "tf": _tf, "torch": _torch, "imagenet": _torch, "caffe": _caffe},
)
