"""Checks of what the losses are given: arguments, outputs and labels."""

import keras
import numpy as np
import tensorflow as tf

__all__ = [
    "as_arrays",
    "as_class_ids",
    "as_labels",
    "check_choice",
    "check_classes",
    "check_layers",
    "check_per_sample",
    "check_same_batch",
    "check_same_shape",
    "is_labels",
    "one_hot",
]


def check_choice(argument, value, choices):
    """Raises `ValueError` unless `value` is one of the names in `choices`."""
    # A list would not even hash, where the choices are the keys of a dict.
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"`{argument}` must be one of {sorted(choices)}. Received: {argument}={value!r}")


def check_layers(argument, layers):
    """Returns `teacher_layers` or `student_layers` as a loss keeps them: None, a name, or a list of names.

    Raises:
        ValueError: anything else, an empty list included.
    """
    # A list of one stays a list: the loss then reads lists, whatever their length.
    if isinstance(layers, (list, tuple)) and layers and all(isinstance(name, str) for name in layers):
        return list(layers)
    if layers is None or isinstance(layers, str):
        return layers
    raise ValueError(
        f"`{argument}` must be None (the final output), a layer's name, or a list of names. "
        f"Received: {argument}={layers!r}"
    )


def check_per_sample(name, values, sample_weight=None):
    """Raises `ValueError` where a loss whose samples are weighted gives one number for all, or several for each.

    Args:
        name: name of the loss.
        values: what it gives.
        sample_weight: the weights; with an axis for each of the values' they may be of parts of samples.
    """
    # Keras would multiply the one number by each of the weights and take it for a loss per sample.
    if len(values.shape) == 0:
        raise ValueError(
            f"Loss '{name}' gives one number per batch, in which samples cannot be weighted. Received: sample "
            "weights, class weights or an ensemble's weights per sample. Train without them, or use a loss that "
            "gives one value per sample, such as SoftTargets(temperature=...)"
        )
    # Axes are matched from the last: as many weights as there are classes would weight the classes.
    if 0 < np.ndim(sample_weight) < len(values.shape) and values.shape[1:] != (1,):
        raise ValueError(
            f"Loss '{name}' gives several values per sample, and weights are one per sample. Received: values of shape "
            f"{tuple(values.shape)}, weights of shape {tuple(np.shape(sample_weight))}. Return one value per sample, "
            "such as `keras.ops.mean(values, axis=-1)`"
        )


def check_same_shape(name, first, second):
    """Raises `ValueError` where two outputs differ in shape, rather than letting them broadcast."""
    if len(first.shape) != len(second.shape) or any(
        a != b for a, b in zip(first.shape, second.shape, strict=True) if a is not None and b is not None
    ):
        raise ValueError(
            f"Loss '{name}' compares outputs of equal shape. Received: {tuple(first.shape)} and {tuple(second.shape)}"
        )


def check_classes(name, shape):
    """Raises `ValueError` for outputs `(batch, 1)`: of a single class the softmax is 1, whatever the model learns."""
    if len(shape) == 2 and shape[-1] == 1:
        raise ValueError(
            f"Loss '{name}' compares classes, of which there must be two or more. Received: outputs of shape "
            f"{tuple(shape)}. For yes and no, give both models two outputs, `Dense(2)` without an activation, and "
            "labels of class ids 0 and 1; or keep the one output and distil it with BinarySoftTargets"
        )


def check_same_batch(name, *outputs):
    """Raises `ValueError` where outputs are of different batch size."""
    if len({x.shape[0] for x in outputs} - {None}) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in outputs)
        raise ValueError(f"Loss '{name}' reads batches of equal size. Received: {shapes}")


def is_labels(labels):
    """Returns whether a tensor has the shape of class ids, `(batch,)` or `(batch, 1)`."""
    return len(labels.shape) == 1 or labels.shape[1:] == (1,)


def as_labels(name, labels):
    """Returns labels, `(batch,)` or `(batch, 1)`, as a tensor `(batch,)` of their own dtype.

    Raises:
        ValueError: labels of another shape, one-hot ones for example.
    """
    labels = tf.convert_to_tensor(labels)
    if not is_labels(labels):
        raise ValueError(f"Loss '{name}': labels must be class ids of shape (batch,). Received: shape {labels.shape}")
    if labels.dtype == tf.string:
        raise ValueError(f"Loss '{name}': labels must be class ids, whole numbers. Received: strings")
    # TensorFlow does not sort booleans.
    return tf.cast(tf.reshape(labels, [-1]), tf.int32 if labels.dtype == tf.bool else labels.dtype)


def as_class_ids(name, labels):
    """Returns labels, `(batch,)` or `(batch, 1)`, as int64 `(batch,)`; raises as `as_labels` does."""
    return tf.cast(as_labels(name, labels), tf.int64)


def one_hot(name, labels, num_classes):
    """Returns bool `(batch, num_classes)`, True at the label; raises as `as_labels` does."""
    # A label that is no class has no True: a loss can tell it, where `tf.one_hot`'s row of zeros passes for a number.
    return as_class_ids(name, labels)[:, None] == tf.range(num_classes, dtype=tf.int64)


def as_arrays(outputs):
    """Returns outputs with nested lists of numbers as arrays; dicts and lists of outputs keep their structure."""
    if isinstance(outputs, dict):
        return {name: as_arrays(output) for name, output in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        # `[[1.0, 2.0]]` is one output, and a list of tensors are several.
        numbers = all(isinstance(leaf, (int, float)) for leaf in keras.tree.flatten(outputs))
        return np.asarray(outputs) if numbers else [as_arrays(output) for output in outputs]
    return outputs
