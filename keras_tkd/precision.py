"""The precision of a run's computation: chosen for the machine, set for training, set back for the files."""

import dataclasses
import pathlib

import keras
import tensorflow as tf

from keras_tkd.teachers import last_operation, made_by

CPUINFO = pathlib.Path("/proc/cpuinfo")
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")


def settle(config):
    """The configuration with a precision in place of `"auto"`, which is printed with the reason."""
    if config.precision != "auto":
        return config
    cpuinfo = CPUINFO.read_text() if CPUINFO.exists() else ""
    precision, reason = choose(tf.config.list_physical_devices("GPU"), cpuinfo)
    print(f"Precision: {precision}, {reason}", flush=True)
    return dataclasses.replace(config, precision=precision)


def choose(gpus, cpuinfo):
    """A precision that the machine is fast in, and why: `(precision, reason)`.

    It goes by what the hardware says of itself, never by timing, so that a machine always chooses alike.

    Args:
        gpus: the GPUs that TensorFlow sees.
        cpuinfo: text of `/proc/cpuinfo`; empty where there is none.
    """
    if gpus:
        return "mixed_float16", f"for the GPU ({len(gpus)} found)"
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = {flag for name, _, values in lines if name.strip() == "flags" for flag in values.split()}
    found = [flag for flag in BFLOAT16_FLAGS if flag in flags]
    if found:
        return "mixed_bfloat16", f"which this processor has in hardware ({', '.join(found)})"
    return "float32", f"for there is no GPU, and no flag {' or '.join(BFLOAT16_FLAGS)} of the processor"


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
