"""What a model knows, measured on images it was not trained on."""

import keras
import numpy as np

from keras_tkd import data, teachers
from keras_tkd.layer_outputs import LayerOutputs
from keras_tkd.verification import verification as verification

EMBEDDING = "embedding"  # the layer's name in this package's models


def logits(model, images, batch_size=256):
    """The model's outputs for all images, float32 `(samples, classes)`; `images` as in `keras_tkd.data`.

    Images of another height or width than the model takes are resized for it, as the `Distiller` does for a teacher.
    """
    return np.concatenate([*layer_outputs(model, images, "logits", batch_size)])


def named_classes(model, images, batch_size=256):
    """The class that the model names for each image, int64 `(samples,)`; no outputs are kept."""
    return np.concatenate([output.argmax(-1) for output in layer_outputs(model, images, "logits", batch_size)])


def embeddings(model, images, layer=EMBEDDING, batch_size=256):
    """The outputs of a layer for all images, float32 `(samples, width)`; `layer` is named as in `LayerOutputs`."""
    return np.concatenate([*layer_outputs(model, images, layer, batch_size)])


def layer_outputs(model, images, layer, batch_size):
    """Yields what a layer puts out, batch by batch."""
    outputs = LayerOutputs(model, [layer])
    for shown in data.in_order(images, batch_size):
        output = outputs(teachers.resized(model, shown), training=False)[1][layer]
        yield keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))


def accuracy(outputs, labels):
    """Share of rows of `outputs` whose largest entry is that of the label, 0..1."""
    return float(np.mean(np.argmax(outputs, axis=-1) == np.asarray(labels)))


def agreement(outputs, teacher_outputs):
    """Share of samples for which two models name the same class, 0..1."""
    return float(np.mean(np.argmax(outputs, axis=-1) == np.argmax(teacher_outputs, axis=-1)))


def standard_error(accuracy, samples):
    """Standard error of an accuracy measured on so many samples (binomial)."""
    return float(np.sqrt(accuracy * (1 - accuracy) / samples))


def at_chance(accuracy, labels):
    """Whether an accuracy cannot be told from always naming the commonest class.

    Args:
        accuracy: share of correct answers on `labels`, 0..1.
        labels: `(samples,)` class ids.

    Returns:
        True if `accuracy` is at most two standard errors above the commonest class's share.
    """
    share = np.unique(np.asarray(labels), return_counts=True)[1].max() / len(labels)
    return bool(accuracy <= share + 2 * standard_error(share, len(labels)))
