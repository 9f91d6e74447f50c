"""The precision of a run's computation: chosen for the machine, set for training, set back for the files."""

import keras

from keras_tkd.utils.keras_graph import last_operation, made_by


def set_precision(model, precision):
    """Makes every layer of `model` compute in `precision`; scaling of pixels and the layer that makes the output
    stay float32.

    Weights are float32 under every one of these policies, so nothing is lost by setting one and setting it back.

    Args:
        model: a built `keras.Model`; changed in place, nested models too.
        precision: `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`.
    """
    for layer in model._flatten_layers():
        # Pixels are scaled in float32: 1 / 255 in bfloat16 is off by 0.4 %.
        layer.dtype_policy = "float32" if isinstance(layer, keras.layers.Rescaling) else precision
    operation, inputs = last_operation(model)
    while operation is not None and not is_plain_layer(operation):
        if isinstance(operation, keras.Model):
            operation, inputs = last_operation(operation)
        else:  # what is done with the output, such as a choice of classes
            operation, inputs = made_by(inputs) if isinstance(inputs, keras.KerasTensor) else (None, None)
    if operation is not None:
        operation.dtype_policy = "float32"


def is_plain_layer(operation):
    return isinstance(operation, keras.layers.Layer) and not isinstance(operation, keras.Model)
