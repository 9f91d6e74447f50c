"""Logits of a teacher: without a softmax, of some classes alone; and freezing it."""

import keras
import numpy as np

from keras_tkd.utils.keras_graph import get_input_dtypes, get_last_operation, get_producer
from keras_tkd.utils.layer_outputs import name_outputs
from keras_tkd.utils.probabilities import sum_to_one

__all__ = [
    "check_logits",
    "ends_in_sigmoid",
    "ends_in_softmax",
    "freeze",
    "hides_end",
    "logits_model",
    "shows_logits",
    "with_classes",
    "with_softmax",
]


def freeze(model):
    """Sets `model.trainable = False`, as `keras.distillation` does.

    BatchNorm's statistics then stay as well, provided the model is called with `training=False`.
    """
    model.trainable = False


def ends_in_softmax(model):
    """Returns whether the model's output is a probability distribution.

    Where its graph shows its end, this says so. Any other model that is built and takes images or other floats is run
    on two random ones: rows that are all >= 0 and sum to 1 are probabilities. A model of which neither is known, one of
    words for example, is taken at its word.
    """
    operation = _find_end(model)
    if isinstance(operation, keras.Model):
        return ends_in_softmax(operation)  # a model that ends in a model
    if operation is not None and _is_softmax(operation):
        return True
    if _is_known(getattr(operation, "activation", None)):
        return False  # a product and a function that is not a softmax; sigmoids, saturated, can look one-hot
    return _run_gives_probabilities(model)


def ends_in_sigmoid(model):
    """Returns whether the model's graph ends in a sigmoid; of a model without a graph that is not known."""
    operation = _find_end(model)
    return ends_in_sigmoid(operation) if isinstance(operation, keras.Model) else _is_sigmoid(operation)


def shows_logits(model):
    """Returns whether the model's graph ends in a layer without an activation, whatever its outputs look like."""
    operation = _find_end(model)
    if isinstance(operation, keras.Model):
        return shows_logits(operation)
    return getattr(operation, "activation", None) is keras.activations.linear


def hides_end(model):
    """Returns whether no graph shows what makes a model's output, which may be a softmax or a sigmoid, or none.

    So it is with a SavedModel, a subclassed model, and a layer of one's own at the end.
    """
    operation = _find_end(model)
    if isinstance(operation, keras.Model):
        return hides_end(operation)
    is_of_keras = type(operation).__module__.partition(".")[0] == "keras"
    return not is_of_keras or isinstance(operation, (keras.layers.TFSMLayer, keras.layers.Lambda))


def _find_end(model):
    """Returns the last operation of a model's graph that changes something; None without a graph."""
    operation, inputs = get_last_operation(model)
    # What changes nothing, such as a cast to float32, is looked past.
    while isinstance(operation, keras.layers.Layer) and _passes_on(operation):
        operation, inputs = get_producer(inputs)
    return operation


def _passes_on(layer):
    """Returns whether a layer, in inference, gives what it is given."""
    kinds = (keras.layers.Dropout, keras.layers.Identity)
    linear = isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.linear
    return linear or isinstance(layer, kinds)


def _is_known(activation):
    """Returns whether an activation is one of Keras's own functions."""
    return (
        activation is not None and getattr(keras.activations, getattr(activation, "__name__", ""), None) is activation
    )


def _run_gives_probabilities(model):
    """Returns whether a model that is built, and can be run on random images, gives probabilities for them."""
    shape = model.input_shape if getattr(model, "inputs", None) else (model.get_build_config() or {}).get("input_shape")
    if not model.built or not isinstance(shape, (tuple, list)) or not all(isinstance(d, int) for d in shape[1:]):
        return False
    # Whole numbers of another shape than images' name something, words for example; random ones might name nothing.
    dtype = get_input_dtypes(model)
    if dtype is not None and not keras.backend.is_float_dtype(dtype) and (dtype == "string" or len(shape) != 4):
        return False
    try:
        outputs = model(np.random.default_rng(0).uniform(0, 255, (2, *shape[1:])), training=False)
    except Exception:
        # A model without a graph does not say what it takes. Whatever it raises, random numbers are not it.
        return False
    return _looks_like_probabilities(outputs)


def _looks_like_probabilities(outputs):
    """Returns whether the rows of `outputs` are >= 0 and sum to 1."""
    rows = outputs.get("logits") if isinstance(outputs, dict) else outputs
    if not hasattr(rows, "shape") or len(rows.shape) != 2:
        return False
    rows = keras.ops.convert_to_numpy(keras.ops.cast(rows, "float32"))
    return bool(rows.min() >= 0) and sum_to_one(rows)


def logits_model(model, multi_label=False):
    """Makes a model with the weights of `model` whose output are the logits that its final softmax receives.

    The softmax is taken off, not inverted: the logits are exact. The layers before it are shared with `model`, which
    stays as it was. A model without a final softmax is returned as it is.

    Of a dense layer whose activation is the softmax the weights are copied. Where the new model is trained on, `model`
    gets the new layers before it and keeps its old last one: `with_softmax` makes of the trained model what is shipped.

    Args:
        model: functional or sequential `keras.Model` with one output, `(batch, classes)`.
        multi_label: whether an image may have several classes: then a final sigmoid is taken off in place of a softmax,
            and a model that ends in a softmax, which makes classes share one whole, is returned as it is.

    Raises:
        ValueError: the model ends in a softmax that no graph shows (a subclassed model), or returns a list of outputs.
    """
    kind, ends, is_kind = ("sigmoid", ends_in_sigmoid, _is_sigmoid)
    if not multi_label:
        kind, ends, is_kind = ("softmax", ends_in_softmax, _is_softmax)
    if len(getattr(model, "outputs", None) or [0]) > 1:
        name_outputs(model, model.output)
    if not ends(model):
        return model
    operation, inputs = get_last_operation(model)
    if isinstance(operation, keras.Model):
        logits = logits_model(operation, multi_label)(inputs)
    elif operation is None or not is_kind(operation):
        raise ValueError(
            f"`logits_model` takes off a {kind} that is the last operation of a functional or sequential model. "
            f"Received: model '{model.name}' of type {type(model).__name__}, which gives probabilities that no {kind} "
            "at its end makes. Let it return the logits."
        )
    elif isinstance(operation, keras.layers.Layer) and operation.weights:
        # A dense layer with that activation: its product stays.
        logits = _copy_without_activation(operation)(inputs)
    else:
        logits = inputs
    return keras.Model(model.inputs[0] if len(model.inputs) == 1 else model.inputs, logits, name=model.name)


def with_softmax(model):
    """Makes a model that returns the probabilities of the classes: the softmax, in float32, of what `model` returns.

    What `logits_model` took off is put on again, for a student that was trained on logits and whose users expect
    probabilities. The layers are shared with `model`, which stays as it was. A model that ends in a softmax is returned
    as it is.

    Args:
        model: functional or sequential `keras.Model` that returns logits, `(batch, classes)`, alone or as `"logits"`
            of a dict.

    Returns:
        A `keras.Model` that returns `(batch, classes)` probabilities.

    Raises:
        ValueError: a model without a graph, or with a list of outputs.

    Example:

    ```python
    student = logits_model(classifier)
    ...                                            # Distiller(teacher, student, ...), compile, fit
    with_softmax(student).save("student.keras")    # and not `classifier`, whose last layer has learned nothing
    ```
    """
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"A softmax is put behind functional or sequential models. Received: {type(model).__name__}. Let its call "
            "return keras.ops.softmax(logits)"
        )
    if ends_in_softmax(model):
        return model
    outputs = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    outputs = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(name_outputs(model, outputs)["logits"])
    return keras.Model(model.inputs[0] if len(model.inputs) == 1 else model.inputs, probabilities, name=model.name)


def check_logits(role, model):
    """Raises `ValueError` for a model that returns probabilities, of one class for each image or of several."""
    if ends_in_sigmoid(model):
        raise ValueError(
            f"The {role} must return logits of classes of which an image has one, and '{model.name}' ends in a "
            "sigmoid. Let it end in a layer without an activation, one output for each class, two for yes and no. Of "
            f"images of several classes take it off: {role} = keras_tkd.teachers.logits_model({role}, "
            "multi_label=True), and distil by BinarySoftTargets"
        )
    if ends_in_softmax(model):
        raise ValueError(
            f"The {role} must return logits, and '{model.name}' ends in a softmax. "
            f"Take it off: {role} = keras_tkd.teachers.logits_model({role})"
            + (". Once it is trained, ship keras_tkd.teachers.with_softmax(student)" if role == "student" else "")
        )


def _is_sigmoid(operation):
    # An operation of `keras.ops` has the name of its class, and a layer an activation.
    return type(operation).__name__ == "Sigmoid" or (
        getattr(operation, "activation", None) is keras.activations.sigmoid
    )


def _copy_without_activation(layer):
    """Copies a built layer, weights included, with `activation="linear"`."""
    copy = layer.__class__.from_config({**layer.get_config(), "activation": "linear"})
    copy.build(layer.input.shape)
    copy.set_weights(layer.get_weights())
    return copy


def _is_softmax(operation):
    if isinstance(operation, keras.layers.Softmax):
        return True
    if type(operation).__name__ == "Softmax":  # keras.ops.softmax in a functional graph
        return True
    return getattr(operation, "activation", None) is keras.activations.softmax


def with_classes(model, classes):
    """Makes a model that returns the logits of some classes of `model`, for a student that knows only these.

    The softmax of these logits is the model's distribution *given that* the class is one of them: `p_c / sum_k p_k`.
    The layers are shared with `model`, which stays as it was, and keep their names.

    Args:
        model: functional or sequential `keras.Model` that returns logits, `(batch, classes)`, alone or as `"logits"`
            of a dict.
        classes: list of indices: output `i` of the new model is output `classes[i]` of `model`.

    Returns:
        A `keras.Model` that returns `(batch, len(classes))` logits, or the dict with these.

    Raises:
        ValueError: no indices, one out of range or given twice; a model without a graph, or with a softmax at its end.

    Example:

    ```python
    distiller = Distiller(with_classes(teacher, [3, 5]), student_of_two_classes, SoftTargets())
    ```
    """
    if not getattr(model, "inputs", None):
        raise ValueError(f"Classes are chosen of functional or sequential models. Received: {type(model).__name__}")
    if ends_in_softmax(model):
        raise ValueError(
            f"Classes are chosen of logits, and '{model.name}' ends in a softmax. "
            "Take it off: keras_tkd.teachers.logits_model(model)"
        )
    outputs = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    # Keras has the one output of a model that was given a list of one as that list.
    outputs = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs
    logits = name_outputs(model, outputs)["logits"]
    count, classes = logits.shape[-1], list(classes)
    integers = all(isinstance(index, (int, np.integer)) for index in classes)
    if not classes or not integers or len(set(classes)) < len(classes) or not all(0 <= c < count for c in classes):
        raise ValueError(
            f"`classes` must be indices of the model's outputs, from 0 to {count - 1}, none twice. "
            f"Received: classes={classes}. Names become indices by keras_tkd.data.class_indices(classes, class_names)"
        )
    chosen = keras.ops.take(logits, [int(index) for index in classes], axis=-1)
    outputs = {**outputs, "logits": chosen} if isinstance(outputs, dict) else chosen
    return keras.Model(model.inputs[0] if len(model.inputs) == 1 else model.inputs, outputs, name=model.name)
