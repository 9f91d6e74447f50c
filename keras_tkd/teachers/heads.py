"""New heads for trained models, whose classes are not those of the data."""

import keras

from keras_tkd.utils.keras_graph import flatten_layers, get_last_operation, get_producer
from keras_tkd.utils.number_checks import check_whole
from keras_tkd.utils.resizing import find_model_size

__all__ = ["fit_to_images", "list_body", "list_left_out", "with_new_head"]

# Names of activations, as functions and as classes are called, without their underscores.
_PROBABILITIES = {"softmax", "logsoftmax", "sigmoid"}
_NONLINEAR = {name.replace("_", "") for name in dir(keras.activations)} - _PROBABILITIES - {"linear"}


def with_new_head(model, num_classes):
    """Makes a model with the body of `model` and a head of its own, with random weights, for other classes.

    The head is one dense layer, a linear probe. Where the last layer with weights of `model` is a classifier, a dense
    layer or a convolution of single positions without an activation but a softmax or sigmoid, it is left out with what
    comes behind it, and the new head gets what it was given. A model without one, a backbone, stays whole, and the head
    gets its output. Maps and tokens are averaged over their positions first. The layers are shared with `model`, which
    stays as it was.

    Args:
        model: functional or sequential `keras.Model` with one input and one output.
        num_classes: number of logits.

    Returns:
        A `keras.Model` that returns `(batch, num_classes)` logits.

    Raises:
        ValueError: a model without a graph; one whose graph does not show where its classifier is, as that of a
            SavedModel or a layer of one's own; or one of which nothing with weights would stay.
    """
    if not getattr(model, "inputs", None) or len(model.outputs) != 1:
        raise ValueError(_refuse(model, "it has no graph of one output"))
    body = _leave_classifier_out(model, len(model.outputs[0].shape) == 2) or model
    # Statistics of pixels are no body: the head would be a linear classifier of the image.
    layers = [layer for layer in _list_inside(body) if not isinstance(layer, keras.layers.Normalization)]
    if not any(layer.weights for layer in layers):
        raise ValueError(_refuse(model, "nothing with weights would stay before the head"))
    check_whole("num_classes", num_classes, 1)
    features = body.outputs[0]
    if len(features.shape) > 2:
        pool = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}.get(len(features.shape))
        if pool is None:
            raise ValueError(_refuse(model, f"the head would be given {tuple(features.shape)}"))
        features = pool(name=_find_free_name(body, "new_head_pooling"))(features)
    name = _find_free_name(body, "new_head")
    logits = keras.layers.Dense(int(num_classes), dtype="float32", name=name)(features)
    return keras.Model(model.inputs[0], logits, name=model.name)


def fit_to_images(model, image_shape):
    """Makes a model that resizes images of `image_shape` for `model`; `model` itself where they fit."""
    size = find_model_size(model, (None, *image_shape))
    if not size:
        return model
    # One that was fitted to other images has a resizing of its own.
    name = _find_free_name(model, "image_resizing")
    images = keras.Input(image_shape, name="image")
    resized = keras.layers.Resizing(*size, antialias=True, dtype="float32", name=name)(images)
    return keras.Model(images, model.call(resized), name=model.name)


def list_body(model):
    """Lists the layers of a model of `with_new_head` that are not its head, those inside others included."""
    head, _ = get_last_operation(model)
    return [layer for layer in _list_inside(model) if layer is not head]


def list_left_out(model, new):
    """Lists the layers of `model` that `new`, made of it by `with_new_head`, is without."""
    kept = {id(layer) for layer in _list_inside(new)}
    # The input of a model that was cut inside another is no loss.
    layers = [layer for layer in _list_inside(model) if not isinstance(layer, keras.layers.InputLayer)]
    return [layer for layer in layers if id(layer) not in kept]


def _list_inside(model):
    return [layer for layer in flatten_layers(model, include_self=False) if not isinstance(layer, keras.Model)]


def _find_free_name(model, name):
    """Returns a name that no layer of the model has: `name`, or this with a number."""
    names, free, number = {layer.name for layer in model.layers}, name, 1
    while free in names:
        number += 1
        free = f"{name}_{number}"
    return free


def _leave_classifier_out(model, row, behind=frozenset()):
    """Returns the model that gives what the classifier at the end of a model is given; None where it has none.

    Args:
        row: whether the outermost model gives one row for an image, and no map.
        behind: names of the activations behind this model, where it is inside another.
    """
    tensor, operation = model.outputs[0], None
    while isinstance(tensor, keras.KerasTensor) and not getattr(operation, "weights", None):
        made = tensor
        operation, tensor = get_producer(made)
        behind |= {_name_activation(operation)}
        if isinstance(operation, keras.layers.InputLayer):
            raise ValueError(_refuse(model, "it has no layer with weights"))
    alone = isinstance(tensor, keras.KerasTensor)
    if alone and isinstance(operation, keras.Model) and len(getattr(operation, "outputs", None) or ()) == 1:
        inner = _leave_classifier_out(operation, row, behind)
        return inner and keras.Model(model.inputs[0], inner.call(tensor))
    if alone and _is_classifier(operation, made, row, behind):
        return keras.Model(model.inputs[0], tensor)
    # A map holds no logits, nor does a row that another layer of Keras's makes. A layer of one's own may be a network.
    if behind & _PROBABILITIES or not (len(made.shape) > 2 or _is_of_keras(operation)):
        name = f"'{operation.name}' of type {type(operation).__name__}"
        raise ValueError(_refuse(model, f"its end is made by {name}, which may hold its classifier"))
    return None


def _is_classifier(layer, made, row, behind):
    """Returns whether a layer with weights, which makes `made`, gives one number for each class."""
    single = all(size == 1 for size in made.shape[1:-1])
    if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D)):
        if not single and any(size > 1 for size in layer.kernel_size):
            return False
    elif not isinstance(layer, keras.layers.Dense):
        return False
    # Where probabilities are the end, anything may come between: SqueezeNet has a ReLU there.
    return bool(behind & _PROBABILITIES) or ((row or single) and not behind & _NONLINEAR)


def _is_of_keras(layer):
    """Returns whether a layer has weights and is one of Keras's, which hold no other but what they say."""
    own = getattr(keras.layers, type(layer).__name__, None) is type(layer)
    return own and bool(layer.weights) and not isinstance(layer, keras.layers.TFSMLayer)


def _name_activation(operation):
    """Returns the name of the activation of a layer, or of the operation itself, which may be one."""
    activation = getattr(operation, "activation", None) or operation
    name = getattr(activation, "__name__", type(activation).__name__)
    return name.replace("_", "").lower()


def _refuse(model, reason):
    return (
        "A new head goes behind functional or sequential models that end in one dense layer or convolution of single "
        f"positions, or that are without a classifier. Received: model '{model.name}' of type {type(model).__name__}: "
        f"{reason}. Give it the head yourself, in Keras, and save it"
    )
