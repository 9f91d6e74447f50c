"""Logits of models that give probabilities by an end which no graph shows, or one logit for two classes."""

import keras

from keras_tkd.utils.keras_graph import get_last_operation
from keras_tkd.utils.layer_outputs import name_outputs

__all__ = ["SMALLEST_PROBABILITY", "invert_probabilities", "is_of_saved_model", "with_two_logits"]

# What a probability of 0 counts as: Keras's own bound for logarithms. Nearer to 0, one class that a forest of trees
# never named would outweigh all others in the losses that read logits as numbers.
SMALLEST_PROBABILITY = 1e-7


def is_of_saved_model(model):
    """Returns whether a model's output is that of a SavedModel, of which there is a graph of TensorFlow's alone."""
    return isinstance(get_last_operation(model)[0], keras.layers.TFSMLayer)


def invert_probabilities(model, multi_label=False):
    """Makes a model that returns the logits of the probabilities that `model` gives, in float32.

        log(p)               of a distribution over the classes, whose softmax is p again
        log(p / (1 - p))     of probabilities of each class, whose sigmoid is p again

    Probabilities count as `SMALLEST_PROBABILITY` at least, and so do their complements. Where a model's graph shows the
    softmax, `logits_model` takes it off instead, which loses nothing.

    Args:
        model: functional or sequential `keras.Model` with one output, `(batch, classes)` probabilities.
        multi_label: whether each class has a probability of its own.
    """
    # float32 under any policy: half precision has no 1 - 1e-7.
    probabilities = keras.ops.cast(_get_output(model), "float32")
    logits = keras.ops.log(keras.ops.maximum(probabilities, SMALLEST_PROBABILITY))
    if multi_label:
        logits -= keras.ops.log(keras.ops.maximum(1 - probabilities, SMALLEST_PROBABILITY))
    return keras.Model(model.inputs[0], logits, name=model.name)


def with_two_logits(model):
    """Makes a model that returns `(-z / 2, z / 2)` for the one logit `z` of the second of two classes.

    The softmax of these is the sigmoid of `z`, and their mean is 0, as losses that read logits as numbers prefer it.

    Args:
        model: functional or sequential `keras.Model` that returns `(batch, 1)` logits.
    """
    half = _get_output(model) / 2
    return keras.Model(model.inputs[0], keras.ops.concatenate([-half, half], axis=-1), name=model.name)


def _get_output(model):
    outputs = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    outputs = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs
    return name_outputs(model, outputs)["logits"]
