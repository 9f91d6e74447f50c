"""Image classifiers by name, or from a file: functional Keras models from pixels 0..255 to logits."""

import difflib

from keras_tkd.models.applications import build_application, check_application
from keras_tkd.models.files import (
    KERAS_FILES,
    check_classifier,
    check_images,
    check_loadable,
    give_graph,
    load_any,
    select_output,
)
from keras_tkd.models.resnet_cifar import RESNETS
from keras_tkd.models.small_cnn import (
    digits_student,
    digits_teacher,
    tkd_student,
    tkd_student_2022,
    tkd_teacher,
)
from keras_tkd.utils.choices import APPLICATIONS
from keras_tkd.utils.number_checks import check_whole

__all__ = [
    "KERAS_FILES",
    "MODELS",
    "build",
    "check_classifier",
    "check_images",
    "check_loadable",
    "check_name",
    "give_graph",
    "load_any",
    "select_output",
]

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


def build(name, image_shape, num_classes, argument="name", weights=None):
    """Builds a model of `MODELS` or of `keras.applications` with random weights, or loads one from a file of Keras's.

    A saved model keeps its weights and its precision policy, and is not compiled. Any image classifier will do: nothing
    here checks that it scales its input, or that it returns logits. Nothing in the file is run: it may name layers of
    Keras, its activations and the like, and what this program registered with
    `keras.saving.register_keras_serializable`; and it may take twenty times its size in memory, at least 64 MiB.

    Args:
        name: a name in `MODELS`; `keras_applications/` and the name of an architecture there, with its arguments if it
            has any, such as `keras_applications/MobileNetV3Small@alpha=0.5`; or a path that ends with `.keras`, or with
            `.h5` or `.hdf5` of older Keras.
        image_shape: `(height, width, channels)` of the images; None in a place accepts what a saved model has there.
        num_classes: number of classes, the length of the model's output; None accepts what a saved model has.
        argument: what errors call `name`, where it is a setting of another name.
        weights: file of weights for the body of an architecture of `keras.applications`, as Keras publishes them with
            `notop` in their names. Nothing is downloaded.

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
    check_name(name, argument)
    if name.startswith(APPLICATIONS):
        return build_application(name, image_shape, num_classes, weights, argument)
    if name.endswith(KERAS_FILES):
        model = select_output(load_any(name, argument), None, name, argument=None)
        return check_classifier(model, image_shape, num_classes, name, argument)
    check_whole("num_classes", num_classes, 1)
    minimum = _MINIMUM_SIZES[name]
    if len(image_shape) != 3 or min(image_shape[:2]) < minimum:
        raise ValueError(
            "`image_shape` must be (height, width, channels), "
            f"for {name!r} at least ({minimum}, {minimum}, 1). Received: image_shape={image_shape}"
        )
    return MODELS[name](image_shape, int(num_classes))


def check_name(name, argument="name"):
    """Raises `ValueError` for a text that names no model that `build` could make; of files, only the endings are read.

    Args:
        name, argument: see `build`.
    """
    if name.startswith(APPLICATIONS):
        check_application(name, argument)
    elif name not in MODELS and not name.endswith(KERAS_FILES):
        nearest = difflib.get_close_matches(name, MODELS)
        hint = f"Did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
        raise ValueError(
            f"`{argument}` must be a model's name or a file ending with `.keras`. Received: {argument}={name!r}. "
            f"{hint}Names: {', '.join(MODELS)}, and {APPLICATIONS}NAME for those of keras.applications"
        )
