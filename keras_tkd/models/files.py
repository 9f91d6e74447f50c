"""Image classifiers out of files: Keras's, of now and before, and TensorFlow's SavedModels."""

import os

import keras

from keras_tkd.utils.model_files import load_model
from keras_tkd.utils.saved_models import is_saved_model, load_saved_model

__all__ = [
    "KERAS_FILES",
    "check_classifier",
    "check_images",
    "check_loadable",
    "give_graph",
    "load_any",
    "select_output",
]

KERAS_FILES = (".keras", ".h5", ".hdf5")


def load_any(path, argument="path", trust_code=False):
    """Loads a model from a Keras file or a SavedModel folder, whatever it is a model of.

    Args:
        path: a file that ends as one of `KERAS_FILES`, or a folder with a SavedModel.
        argument: what errors call it.
        trust_code: see `utils.model_files.load_model`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another kind, or one that cannot be loaded.
    """
    path = str(path)
    check_loadable(path, argument)
    return load_saved_model(path, argument) if is_saved_model(path) else load_model(path, argument, trust_code)


def check_loadable(path, argument="path"):
    """Raises for what `load_any` does not load, as far as its name tells: nothing is read.

    Args, Raises: see `load_any`.
    """
    path = str(path)
    if is_saved_model(path):
        return
    # Else the error, that the file cannot be loaded, would hide that there is none.
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"`{argument}` must be a model's name or an existing file. Received: {argument}={path!r}"
        )
    if not path.endswith(KERAS_FILES):
        raise ValueError(
            f"`{argument}` must be a file that ends with {', '.join(KERAS_FILES)}, or a folder with a SavedModel. "
            f"Received: {argument}={path!r}"
        )


def select_output(model, output, path, argument="output"):
    """Returns a model with one of the outputs of `model`.

    Args:
        model: functional or sequential `keras.Model`.
        output: name of an output, or its index as text or a number. None for the only one there is or, of several in a
            dict, for `"logits"`.
        path: the model's file, for errors.
        argument: what errors call `output`; None where nobody is asked for one.

    Raises:
        ValueError: there is no such output, or none is named and there are several.
    """
    outputs = getattr(model, "output", None) if getattr(model, "inputs", None) else None
    if isinstance(outputs, (list, tuple)):
        # Layers that give several outputs have one name for all of them.
        unique = len(set(model.output_names)) == len(outputs)
        names = model.output_names if unique else map(str, range(len(outputs)))
        outputs = dict(zip(names, outputs, strict=True)) if len(outputs) > 1 else outputs[0]
    if outputs is None or (output is None and not isinstance(outputs, dict)):
        return model
    outputs = outputs if isinstance(outputs, dict) else {model.output_names[0]: outputs}
    if output is None and list(outputs) == ["logits"]:
        return model
    # The only one needs no name, and of several this package's own is the first choice.
    name = str(output) if output is not None else next(iter(outputs)) if len(outputs) == 1 else "logits"
    if name not in outputs and name.isdecimal() and int(name) < len(outputs):
        name = list(outputs)[int(name)]
    if name not in outputs:
        known = ", ".join(
            f"{number}: {name} {tuple(each.shape)}" for number, (name, each) in enumerate(outputs.items())
        )
        if argument is None:
            raise ValueError(
                "A model must have one output, or a dict of them with 'logits' in it. Received: "
                f"{str(path)!r}, whose outputs are {known}. Save a model of one of them: "
                "keras.Model(model.inputs, model.outputs[0])"
            )
        raise ValueError(
            f"`{argument}` must be the name or the number of one of the outputs of {str(path)!r}, which are {known}. "
            f"Received: {argument}={output!r}"
        )
    return keras.Model(model.inputs[0] if len(model.inputs) == 1 else model.inputs, outputs[name], name=model.name)


def give_graph(model, image_shape):
    """Makes a functional model around a subclassed one, whose call is then one layer; any other model stays.

    Args:
        model: `keras.Model` out of a file.
        image_shape: `(height, width, channels)` of the images, where the file does not say which it was built for.

    Returns:
        A `keras.Model` of the same name. One that is not built stays as well: its weights would be random.
    """
    if not isinstance(model, keras.Model) or not model.built or getattr(model, "inputs", None):
        return model
    shape = (model.get_build_config() or {}).get("input_shape")
    if isinstance(shape, (list, tuple)) and len(shape) == 4 and all(isinstance(size, int) for size in shape[1:]):
        image_shape = shape[1:]
    images = keras.Input(tuple(image_shape))
    return keras.Model(images, model(images), name=model.name)


def check_images(model, image_shape, path, argument="path"):
    """Returns the model, if it takes such images and gives one output.

    Args, Raises: see `check_classifier`.
    """
    inputs, outputs = (_get_shapes(getattr(model, side, None)) for side in ("inputs", "outputs"))
    if not isinstance(model, keras.Model) or len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"`{argument}` must be a functional or built Sequential Keras model with one input and one output. "
            f"Received: {argument}={str(path)!r}, a {type(model).__name__} with inputs {inputs} and outputs {outputs}"
        )
    if not _matches(image_shape, inputs[0]):
        raise ValueError(
            "`image_shape` must be that of the saved model. "
            f"Received: image_shape={image_shape}, but {str(path)!r} takes {inputs[0]}"
        )
    return model


def check_classifier(model, image_shape, num_classes, path, argument="path"):
    """Returns the model, if it classifies such images.

    Args:
        model: `keras.Model` out of a file.
        image_shape: `(height, width, channels)` of the images; None in a place accepts what the model has there.
        num_classes: length of its output; None accepts what it has.
        path: its file, for errors.
        argument: what errors call that.

    Raises:
        ValueError: it is no functional or built sequential model with one input and one output, or one of other shapes.
    """
    (output,) = _get_shapes(check_images(model, image_shape, path, argument).outputs)
    if len(output) != 1:
        raise ValueError(
            f"`{argument}` must be a classifier, which gives one row of logits for an image. Received: "
            f"{argument}={str(path)!r}, which gives a map, or a sequence, of shape {output}. Save it with a head"
        )
    if num_classes not in (None, *output):
        raise ValueError(
            "`num_classes` must be the length of the saved model's output. "
            f"Received: num_classes={num_classes}, but {str(path)!r} returns {output}"
        )
    return model


def _get_shapes(tensors):
    """Returns the shapes of symbolic tensors without their batches; `[]` for None, as an unbuilt model has it."""
    return [tuple(tensor.shape[1:]) for tensor in tensors or ()]


def _matches(shape, other):
    """Returns whether two shapes are equal, None standing for any length."""
    if len(shape) != len(other):
        return False
    return all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))
