"""New heads for trained models, whose classes are not those of the data."""

import keras

from keras_tkd.utils.keras_graph import flatten_layers, get_producer
from keras_tkd.utils.resizing import find_model_size

__all__ = ["fit_to_images", "list_body", "with_new_head"]

_HEAD = "new_head"


def with_new_head(model, num_classes):
    """Makes a model with the body of `model` and a head of its own, with random weights, for other classes.

    The head is one dense layer on what the last layer with weights of `model` is given: a linear probe. Where that is a
    map, or tokens, it is averaged over its positions first. The layers before are shared with `model`, which stays as
    it was; what comes behind its last layer with weights, a softmax for example, is left out.

    Args:
        model: functional or sequential `keras.Model` with one input and one output.
        num_classes: number of logits.

    Returns:
        A `keras.Model` that returns `(batch, num_classes)` logits.

    Raises:
        ValueError: a model without a graph, or whose last layers with weights are several side by side.
    """
    if not getattr(model, "inputs", None) or len(model.outputs) != 1:
        raise ValueError(_refuse(model))
    body = _find_body(model)
    if len(body.outputs[0].shape) > 2:
        axes = len(body.outputs[0].shape) - 2
        pool = {1: keras.layers.GlobalAveragePooling1D, 2: keras.layers.GlobalAveragePooling2D}.get(axes)
        if pool is None:
            raise ValueError(_refuse(model))
        features = pool(name="new_head_pooling")(body.outputs[0])
    else:
        features = body.outputs[0]
    logits = keras.layers.Dense(num_classes, dtype="float32", name=_HEAD)(features)
    return keras.Model(model.inputs[0], logits, name=model.name)


def fit_to_images(model, image_shape):
    """Makes a model that resizes images of `image_shape` for `model`; `model` itself where they fit."""
    size = find_model_size(model, (None, *image_shape))
    if not size:
        return model
    images = keras.Input(image_shape, name="image")
    resized = keras.layers.Resizing(*size, antialias=True, dtype="float32", name="image_resizing")(images)
    return keras.Model(images, model.call(resized), name=model.name)


def list_body(model):
    """Lists the layers of a model of `with_new_head` that are not its head, those inside others included."""
    inside = [layer for layer in flatten_layers(model, include_self=False) if not isinstance(layer, keras.Model)]
    return [layer for layer in inside if layer.name != _HEAD]


def _find_body(model):
    """Returns the model that gives what the last layer with weights is given."""
    tensor = model.outputs[0]
    while isinstance(tensor, keras.KerasTensor):
        operation, inputs = get_producer(tensor)
        if isinstance(operation, keras.layers.InputLayer):
            break
        if isinstance(operation, keras.layers.Layer) and operation.weights:
            if isinstance(inputs, keras.KerasTensor):
                if isinstance(operation, keras.Model):
                    inputs = _find_body(operation).call(inputs)
                return keras.Model(model.inputs[0], inputs)
            break
        tensor = inputs
    raise ValueError(_refuse(model))


def _refuse(model):
    return (
        "A new head goes behind functional or sequential models whose last layer with weights is one dense layer or "
        f"convolution. Received: model '{model.name}' of type {type(model).__name__}. Give it the head yourself, in "
        "Keras, and save it"
    )
