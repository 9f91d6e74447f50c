"""Pixels scaled as a teacher expects them."""

import keras

from keras_tkd.utils.pixel_scaling import PREPROCESSING, scale_pixels

__all__ = ["with_preprocessing"]

_OF_COLOURS = ("torch", "imagenet", "caffe")


def with_preprocessing(model, mode):
    """Makes a model that scales pixels of 0..255 as `model` was trained with, and then is `model`.

    The layers are shared with `model`, which stays as it was, and keep their names.

    Args:
        mode: `"none"`, `"unit"` (to 0..1), `"tf"` (to -1..1), `"torch"` or `"imagenet"` (to 0..1, then the ImageNet
            mean and deviation per channel) or `"caffe"` (blue, green, red; ImageNet mean subtracted, in pixels).
            `"tf"`, `"torch"` and `"caffe"` are Keras's names, of which `keras.applications` says no more than the
            models' own `preprocess_input`: `"tf"` are MobileNet, MobileNetV2, Inception, Xception, NASNet and
            ResNetV2, `"torch"` is DenseNet, `"caffe"` are VGG and ResNet.

    Raises:
        ValueError: unknown mode; a mode for colour images on a model of other channels.
    """
    if mode not in PREPROCESSING:
        raise ValueError(f"`mode` must be one of {sorted(PREPROCESSING)}. Received: mode={mode!r}")
    if mode == "none":
        return model
    if not getattr(model, "inputs", None):
        raise ValueError(f"Preprocessing goes before functional or sequential models. Received: {type(model).__name__}")
    shape = tuple(model.input_shape[1:])
    if mode in _OF_COLOURS and shape[-1] != 3:
        raise ValueError(f"Preprocessing {mode!r} is for colour images of 3 channels. Received: input shape {shape}")
    # The scaling is nested, lest a layer of the model have its name. The model is not: its layers' paths would change.
    inputs = keras.Input(shape)
    scaling = keras.Model(inputs, scale_pixels(inputs, mode), name=f"pixels_{mode}")
    pixels = keras.Input(shape, name="pixels")
    return keras.Model(pixels, model.call(scaling(pixels)), name=model.name)
