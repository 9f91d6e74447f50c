"""The precision in which a model computes: set for training, and set back to float32 for saving."""

import contextlib

import keras

from keras_tkd.utils.keras_graph import flatten_layers, get_last_operation, get_producer

__all__ = ["computing_in", "set_precision"]

_SCALING = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Resizing)


def set_precision(model, precision):
    """Makes every layer of `model` compute in `precision`, except for those that must stay float32.

    These are layers that scale pixels, and the layer that makes the output. Weights are float32 under every one of the
    policies, so nothing is lost by setting one and setting it back.

    Args:
        model: a built `keras.Model`; changed in place, nested models too.
        precision: `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`.
    """
    for layer in flatten_layers(model):
        # 1 / 255 in bfloat16 is off by 0.4 %, and would darken every image.
        layer.dtype_policy = "float32" if isinstance(layer, _SCALING) else precision
    # The output stays float32: logits in bfloat16 have 8 significant bits, and losses compare small differences.
    operation, inputs = get_last_operation(model)
    while operation is not None and not _is_plain_layer(operation):
        if isinstance(operation, keras.Model):
            operation, inputs = get_last_operation(operation)
        else:  # an operation on the output, such as a choice of classes: the layer is behind it
            operation, inputs = get_producer(inputs) if isinstance(inputs, keras.KerasTensor) else (None, None)
    if operation is not None:
        operation.dtype_policy = "float32"


@contextlib.contextmanager
def computing_in(models, precision):
    """Has models compute in `precision` while the context is open, and in what they did before afterwards.

    Args:
        models: iterable of built `keras.Model`.
        precision: as for `set_precision`.
    """
    models = list(models)
    before = [(layer, layer.dtype_policy) for model in models for layer in flatten_layers(model)]
    try:
        for model in models:
            set_precision(model, precision)
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def _is_plain_layer(operation):
    return isinstance(operation, keras.layers.Layer) and not isinstance(operation, keras.Model)
