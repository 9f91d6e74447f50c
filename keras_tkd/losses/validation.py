"""What the losses check of outputs and labels."""

import keras
import numpy as np
import tensorflow as tf


def class_ids(name, labels):
    """Labels, `(batch,)` or `(batch, 1)`, as int64 `(batch,)`."""
    labels = tf.convert_to_tensor(labels)
    if len(labels.shape) != 1 and labels.shape[1:] != (1,):
        raise ValueError(f"Loss '{name}': labels must be class ids of shape (batch,). Received: shape {labels.shape}")
    return tf.cast(tf.reshape(labels, [-1]), tf.int64)


def one_hot(name, labels, num_classes):
    """`(batch, classes)` bool, True at the label; labels are class ids, `(batch,)` or `(batch, 1)`."""
    return class_ids(name, labels)[:, None] == tf.range(num_classes, dtype=tf.int64)


def arrays(outputs):
    """Nested lists of numbers as arrays; dicts and lists of outputs keep their structure."""
    if isinstance(outputs, dict):
        return {name: arrays(output) for name, output in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        numbers = all(isinstance(leaf, (int, float)) for leaf in keras.tree.flatten(outputs))
        return np.asarray(outputs) if numbers else [arrays(output) for output in outputs]
    return outputs


def check_same_shape(name, first, second):
    """Raises `ValueError` where two outputs differ in shape, rather than letting them broadcast."""
    if len(first.shape) != len(second.shape) or any(
        a != b for a, b in zip(first.shape, second.shape, strict=True) if a is not None and b is not None
    ):
        raise ValueError(
            f"Loss '{name}' compares outputs of equal shape. Received: {tuple(first.shape)} and {tuple(second.shape)}"
        )


def check_same_batch(name, *outputs):
    """Raises `ValueError` where outputs are of different batch size."""
    if len({x.shape[0] for x in outputs} - {None}) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in outputs)
        raise ValueError(f"Loss '{name}' reads batches of equal size. Received: {shapes}")


def check_layers(argument, layers):
    if isinstance(layers, (list, tuple)) and layers and all(isinstance(name, str) for name in layers):
        return list(layers)
    if layers is None or isinstance(layers, str):
        return layers
    raise ValueError(
        f"`{argument}` must be None (the final output), a layer's name, or a list of names. "
        f"Received: {argument}={layers!r}"
    )
