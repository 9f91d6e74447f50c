"""The precision in which a model computes: set for training, and set back to float32 for saving."""

import contextlib

import keras

from keras_tkd.utils.keras_graph import flatten_layers, get_producer

__all__ = ["computing_in", "set_precision"]

# 1 / 255 in bfloat16 is off by 0.4 %, and would darken every image. A SavedModel's graph takes what it was saved for.
_FLOAT32 = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Resizing, keras.layers.TFSMLayer)


def set_precision(model, precision):
    """Makes every layer of `model` compute in `precision`, except for those that must not.

    Layers that scale pixels, those that make the output, and SavedModels compute in float32; layers that are quantized,
    or whose policy has weights of another kind than float32's, compute as they did. All other weights are float32 under
    every one of the policies, so nothing is lost by setting one and setting it back.

    Args:
        model: a built `keras.Model`; changed in place, nested models too.
        precision: `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`.
    """
    # The output stays float32: logits in bfloat16 have 8 significant bits, and losses compare small differences.
    fixed = {id(layer) for layer in _find_output_layers(model)}
    for layer in flatten_layers(model):
        # An int8 kernel without its scale is another network, and a convolution takes no weights of another kind.
        if layer.variable_dtype == "float32" and layer.quantization_mode is None:
            layer.dtype_policy = "float32" if isinstance(layer, _FLOAT32) or id(layer) in fixed else precision


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


def _find_output_layers(model):
    """Returns the layers that make what a model with a graph returns; those behind operations on it, too."""
    waiting, seen, found = list(getattr(model, "outputs", None) or ()), set(), []
    while waiting:
        operation, inputs = get_producer(waiting.pop())
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        if isinstance(operation, keras.Model):
            found += _find_output_layers(operation)
        elif isinstance(operation, keras.layers.Layer):
            found.append(operation)
        else:  # an operation on the output, such as a choice of classes: the layer is behind it
            waiting += [tensor for tensor in keras.tree.flatten(inputs) if isinstance(tensor, keras.KerasTensor)]
    return found
