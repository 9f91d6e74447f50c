"""Image classifiers by name, or from a file: functional Keras models from pixels 0..255 to logits."""

import difflib
import os

import keras

from keras_tkd.models.resnet_cifar import RESNETS
from keras_tkd.models.small_cnn import (
    digits_student,
    digits_teacher,
    tkd_student,
    tkd_student_2022,
    tkd_teacher,
)
from keras_tkd.utils.model_files import load_model
from keras_tkd.utils.number_checks import check_whole

__all__ = ["MODELS", "build"]

MODELS = {
    "tkd_teacher": tkd_teacher,
    "tkd_student": tkd_student,
    "tkd_student_2022": tkd_student_2022,
    "digits_teacher": digits_teacher,
    "digits_student": digits_student,
    **RESNETS,
}

# A model that halves the image n times needs 2**n pixels a side.
_MINIMUM_SIZES = {
    **dict.fromkeys(("tkd_teacher", "tkd_student", "tkd_student_2022"), 8),
    **dict.fromkeys(("digits_teacher", "digits_student", *RESNETS), 4),
}


def build(name, image_shape, num_classes, argument="name"):
    """Builds a model of `MODELS` with random weights, or loads one from a `.keras` file.

    A saved model keeps its weights and its precision policy, and is not compiled. Any image classifier will do: nothing
    here checks that it scales its input, or that it returns logits. Nothing in the file is run: it may name layers of
    Keras, its activations and the like, and what this program registered with
    `keras.saving.register_keras_serializable`; and it may take twenty times its size in memory, at least 64 MiB.

    Args:
        name: a name in `MODELS`, or a path that ends with `.keras`.
        image_shape: `(height, width, channels)` of the images; None in a place accepts what a saved model has there.
        num_classes: number of classes, the length of the model's output; None accepts what a saved model has.
        argument: what errors call `name`, where it is a setting of another name.

    Returns:
        A `keras.Model` from `(batch, *image_shape)` to `(batch, num_classes)`.

    Raises:
        ValueError: if the name is unknown, the images are too small for the model, or the file is not a Keras
            model for these images and this number of classes, holds code, or would take more memory than that.
        FileNotFoundError: if there is no such file.

    Example:

    >>> build("tkd_student", image_shape=(32, 32, 3), num_classes=10).count_params()
    161130
    """
    name, image_shape = str(name), tuple(image_shape)
    if name.endswith(".keras"):
        return _load(name, image_shape, num_classes, argument)
    if name not in MODELS:
        nearest = difflib.get_close_matches(name, MODELS)
        hint = f"Did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
        raise ValueError(
            f"`{argument}` must be a model's name or a file ending with `.keras`. Received: {argument}={name!r}. "
            f"{hint}Names: {', '.join(MODELS)}"
        )
    check_whole("num_classes", num_classes, 1)
    minimum = _MINIMUM_SIZES[name]
    if len(image_shape) != 3 or min(image_shape[:2]) < minimum:
        raise ValueError(
            "`image_shape` must be (height, width, channels), "
            f"for {name!r} at least ({minimum}, {minimum}, 1). Received: image_shape={image_shape}"
        )
    return MODELS[name](image_shape, num_classes)


def _load(path, image_shape, num_classes, argument):
    # Else the error below, that the file cannot be loaded, would hide that there is none.
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"`{argument}` must be a model's name or an existing file. Received: {argument}={path!r}"
        )
    model = load_model(path, argument)
    inputs, outputs = (_shapes(getattr(model, side, None)) for side in ("inputs", "outputs"))
    if not isinstance(model, keras.Model) or len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"`{argument}` must be a functional or built Sequential Keras model with one input and one output. "
            f"Received: {argument}={path!r}, a {type(model).__name__} with inputs {inputs} and outputs {outputs}"
        )
    if not _matches(image_shape, inputs[0]):
        raise ValueError(
            "`image_shape` must be that of the saved model. "
            f"Received: image_shape={image_shape}, but {path!r} takes {inputs[0]}"
        )
    # An output with more axes is a map or a sequence, not a row of logits.
    if len(outputs[0]) != 1 or num_classes not in (None, *outputs[0]):
        raise ValueError(
            "`num_classes` must be the length of the saved model's output. "
            f"Received: num_classes={num_classes}, but {path!r} returns {outputs[0]}"
        )
    return model


def _shapes(tensors):
    """Returns the shapes of symbolic tensors without their batches; `[]` for None, as an unbuilt model has it."""
    return [tuple(tensor.shape[1:]) for tensor in tensors or ()]


def _matches(shape, other):
    """Returns whether two shapes are equal, None standing for any length."""
    if len(shape) != len(other):
        return False
    return all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))
