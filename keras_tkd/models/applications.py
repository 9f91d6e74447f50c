"""Architectures of `keras.applications`, by `keras_applications/NAME`: their body, behind the scaling of its pixels.

The body is what `include_top=False` makes; the head is this package's: average pooling over all positions, and a dense
layer of logits. What Keras has between the two for ImageNet (the wide dense layers of VGG, the last convolution of
MobileNetV3, dropout) is left out, as it is where a body is trained for other classes.

They take pixels 0..255 and return logits. Distillation reads these layers, and all of Keras's own by their names:
- `features`: the body's output, the last map;
- `embedding`: its average over all positions;
- `logits`: the output, float32 under any policy.
"""

import difflib
import inspect

import keras
from keras import layers

from keras_tkd.utils.choices import APPLICATIONS
from keras_tkd.utils.keras_graph import fresh_names
from keras_tkd.utils.model_files import load_weights
from keras_tkd.utils.number_checks import check_whole, is_finite, is_whole
from keras_tkd.utils.pixel_scaling import scale_pixels

__all__ = ["build_application", "check_application"]

# By the modules of `keras.applications`: the scaling that their `preprocess_input` does, where they have none inside,
# and the least pixels a side.
_FAMILIES = {
    "convnext": ("none", 32),
    "densenet": ("torch", 32),
    "efficientnet": ("none", 32),
    "efficientnet_v2": ("none", 32),
    "inception_resnet_v2": ("tf", 75),
    "inception_v3": ("tf", 75),
    "mobilenet": ("tf", 32),
    "mobilenet_v2": ("tf", 32),
    "mobilenet_v3": ("none", 32),
    "nasnet": ("tf", 32),
    "resnet": ("caffe", 32),
    "resnet_v2": ("tf", 32),
    "vgg16": ("caffe", 32),
    "vgg19": ("caffe", 32),
    "xception": ("tf", 71),
}
# Published networks have alpha up to 1.4 and depth_multiplier 1. Weights grow with alpha squared and depth_multiplier:
# MobileNet at both bounds has 400 million, and beyond them one digit more is a machine's whole memory.
_MAX_ALPHA, _MAX_DEPTH_MULTIPLIER = 4, 8
# Of their arguments, those that change the body; each with how it is written, and what that may be.
_ARGUMENTS = {
    "alpha": (
        float,
        lambda value: is_finite(value) and 0 < value <= _MAX_ALPHA,
        f"a number > 0, and {_MAX_ALPHA} at most",
    ),
    "depth_multiplier": (
        int,
        lambda value: is_whole(value) and 1 <= value <= _MAX_DEPTH_MULTIPLIER,
        f"a whole number >= 1, and {_MAX_DEPTH_MULTIPLIER} at most",
    ),
    "minimalistic": ({"True": True, "False": False}.__getitem__, lambda value: True, "True or False"),
}


def check_application(spec, argument="name"):
    """Parses `keras_applications/NAME` or `keras_applications/NAME@argument=value`, several joined by more `@`.

    Args:
        spec: the text.
        argument: what errors call it.

    Returns:
        `(name, arguments)`: an architecture of `keras.applications`, and a dict of what it is called with.

    Raises:
        ValueError: an architecture that Keras does not have, an argument that it does not take, or a value that this
            cannot have.
    """
    name, *given = spec.removeprefix(APPLICATIONS).split("@")
    received = f"Received: {argument}={spec!r}"
    known = _list_architectures()
    if name not in known:
        raise ValueError(
            f"`{argument}` must name an architecture of keras.applications. {received}. {_suggest(name, known)}"
            f"Names: {', '.join(known)}"
        )
    takes = [each for each in inspect.signature(getattr(keras.applications, name)).parameters if each in _ARGUMENTS]
    arguments = {}
    for part in given:
        key, _, value = part.partition("=")
        if key == "weights":
            raise ValueError(
                f"Weights are those of a file, and nothing is downloaded: name it with --{argument}_weights=FILE. "
                + received
            )
        if key not in takes or key in arguments:
            raise ValueError(
                f"{name} takes {'these arguments' if takes else 'no arguments'} here"
                f"{', each once: ' * bool(takes)}{', '.join(takes)}. {received}. {_suggest(key, takes)}"
            )
        convert, holds, kind = _ARGUMENTS[key]
        try:
            arguments[key] = convert(value)
        except (KeyError, ValueError):
            arguments[key] = None
        if arguments[key] is None or not holds(arguments[key]):
            raise ValueError(f"`{key}` of {name} must be {kind}. {received}")
    return name, arguments


def build_application(spec, image_shape, num_classes, weights=None, argument="name"):
    """Builds an architecture of `keras.applications` for images and classes, with random weights or those of a file.

    Grey images become three equal channels: the architectures, and the scaling of their pixels, are made for colours.
    The names of all layers are the same whatever the process has built before.

    Args:
        spec: see `check_application`.
        image_shape: `(height, width, channels)`, of 1 or 3 channels.
        num_classes: number of logits.
        weights: HDF5 file of the body's weights, as Keras publishes them with `notop` in their names and as
            `body.save_weights` writes them; None for random ones. The head's are random in any case.
        argument: what errors call `spec`; `weights` are its `<argument>_weights`.

    Raises:
        ValueError: see `check_application`; images that are too small, or of another number of channels; weights of
            another architecture.
        FileNotFoundError: there is no such file of weights.
    """
    name, arguments = check_application(spec, argument)
    family = _get_family(name)
    mode, minimum = _FAMILIES[family]
    if len(image_shape) != 3 or min(image_shape[:2]) < minimum or image_shape[2] not in (1, 3):
        raise ValueError(
            f"`image_shape` must be (height, width, channels), for {name} at least {minimum} pixels a side, in 1 or 3 "
            f"channels. Received: image_shape={image_shape}. Images are made larger with --image_size={minimum}"
        )
    check_whole("num_classes", num_classes, 1)
    with fresh_names():
        images = keras.Input(image_shape, name="image")
        x = layers.Concatenate(name="grey_to_colours")([images] * 3) if image_shape[2] == 1 else images
        x = scale_pixels(x, mode)
        if weights and family == "efficientnet":
            x = _restore_efficientnet_scaling(x)
        try:
            body = getattr(keras.applications, name)(
                include_top=False, weights=None, input_tensor=x, input_shape=(*image_shape[:2], 3), **arguments
            )
        except ValueError as error:  # widths that round to no channel at all
            raise ValueError(
                f"{name} cannot be built so. Received: {argument}={spec!r}. Keras says: {error}"
            ) from error
        if weights:
            _load_body(body, weights, f"{argument}_weights", name)
        x = layers.Identity(name="features")(body.output)
        x = layers.GlobalAveragePooling2D(name="embedding")(x)
        logits = layers.Dense(int(num_classes), dtype="float32", name="logits")(x)
        return keras.Model(images, logits, name=name)


def _load_body(body, path, argument, name):
    try:
        load_weights(body, path, argument)
    except ValueError as error:
        raise ValueError(
            f"{error}. The file must hold the weights of the body of {name} alone, `include_top=False`, of which Keras "
            "publishes files with `notop` in their names, for the same arguments"
        ) from error


def _restore_efficientnet_scaling(x):
    # The published weights want (pixels - mean) / deviation / sqrt(deviation), of which Keras's EfficientNetB0 to B7
    # has the last division with weights="imagenet" alone, behind layers of its own: here it is done before these.
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    scale = [d**-0.5 for d in deviation]
    offset = [255 * m * (1 - s) for m, s in zip(mean, scale, strict=True)]
    return layers.Rescaling(scale, offset, dtype="float32", name="pixel_scaling")(x)


def _list_architectures():
    functions = {name: value for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    return sorted(name for name in functions if _get_family(name) in _FAMILIES)


def _get_family(name):
    return getattr(keras.applications, name).__module__.rpartition(".")[2]


def _suggest(name, known):
    nearest = difflib.get_close_matches(name, known)
    return f"Did you mean {' or '.join(nearest)}? " if nearest else ""
