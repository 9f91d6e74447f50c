"""Pixels scaled as a teacher expects them."""

import keras

from keras_tkd.utils.keras_graph import flatten_layers
from keras_tkd.utils.pixel_scaling import PREPROCESSING, scale_pixels

__all__ = ["with_preprocessing"]

_OF_COLOURS = ("torch", "imagenet", "caffe")


def _name_scaling(mode):
    return f"pixels_{mode}"


_SCALINGS = {_name_scaling(mode) for mode in PREPROCESSING}


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
        ValueError: unknown mode; a mode for colour images on a model of other channels; a model that this function has
            made.
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
    # Whatever the two modes: a model sees pixels of 0..255 once.
    made = [layer.name for layer in flatten_layers(model) if layer.name in _SCALINGS]
    if made:
        raise ValueError(
            f"Preprocessing goes before a model that does not scale its pixels itself. Received: mode={mode!r}, and "
            f"'{model.name}', which scales its pixels already, by '{made[0]}'. Leave the preprocessing out: 'none'"
        )
    # The scaling is nested, lest a layer of the model have its name. The model is not: its layers' paths would change.
    inputs = keras.Input(shape)
    scaling = keras.Model(inputs, scale_pixels(inputs, mode), name=_name_scaling(mode))
    pixels = keras.Input(shape, name="pixels")
    return keras.Model(pixels, model.call(scaling(pixels)), name=model.name)
