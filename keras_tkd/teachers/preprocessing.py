"""Pixels scaled as a teacher expects them."""

import keras

from keras_tkd.utils import choices

__all__ = ["PREPROCESSING", "with_preprocessing"]


def _unit(x):
    return keras.layers.Rescaling(1 / 255)(x)


def _imagenet(x):
    # Mean and deviation of each channel in 0..1, both written for pixels of 0..255: one affine map.
    deviation = (0.229, 0.224, 0.225)
    scale = [1 / (255 * d) for d in deviation]
    return keras.layers.Rescaling(scale, [-m / d for m, d in zip((0.485, 0.456, 0.406), deviation, strict=True)])(x)


def _caffe(x):
    # Channels are reversed first: Caffe's models were trained on images as OpenCV reads them.
    return keras.layers.Rescaling(1.0, [-103.939, -116.779, -123.68])(keras.ops.flip(x, axis=-1))


PREPROCESSING = choices.check_complete(
    choices.PREPROCESSING, {"none": None, "unit": _unit, "imagenet": _imagenet, "caffe": _caffe}
)


def with_preprocessing(model, mode):
    """Makes a model that scales pixels of 0..255 as `model` was trained with, and then is `model`.

    The layers are shared with `model`, which stays as it was, and keep their names.

    Args:
        mode: `"none"`, `"unit"` (to 0..1), `"imagenet"` (to 0..1, then the ImageNet mean and deviation per channel) or
            `"caffe"` (blue, green, red; ImageNet mean subtracted, in pixels).

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
    if mode in ("imagenet", "caffe") and shape[-1] != 3:
        raise ValueError(f"Preprocessing {mode!r} is for colour images of 3 channels. Received: input shape {shape}")
    # The scaling is nested, lest a layer of the model have its name. The model is not: its layers' paths would change.
    inputs = keras.Input(shape)
    scaling = keras.Model(inputs, PREPROCESSING[mode](inputs), name=f"pixels_{mode}")
    pixels = keras.Input(shape, name="pixels")
    return keras.Model(pixels, model.call(scaling(pixels)), name=model.name)
