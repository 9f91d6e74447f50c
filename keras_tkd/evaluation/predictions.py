"""Predictions of a model for many images, batch by batch."""

import keras
import numpy as np

from keras_tkd import data
from keras_tkd.utils import resizing
from keras_tkd.utils.layer_outputs import LayerOutputs

__all__ = ["EMBEDDING", "embeddings", "logits", "name_labels", "predict_classes", "predict_labels"]

EMBEDDING = "embedding"  # the layer's name in this package's models


def logits(model, images, batch_size=256):
    """Returns the model's outputs for all images.

    Images of another height or width than the model takes are resized for it, as the `Distiller` does for a teacher.

    Args:
        model: a `keras.Model`.
        images: `(samples, height, width, channels)`, an array or an `ImageStream`.
        batch_size: images in a forward pass.

    Returns:
        float32 `(samples, num_classes)`.
    """
    return np.concatenate([*_iterate_outputs(model, images, "logits", batch_size)])


def predict_classes(model, images, batch_size=256):
    """Returns the class that the model predicts for each image, int64 `(samples,)`.

    Arguments are those of `logits`, whose outputs of all images at once would take memory with many classes.
    """
    return np.concatenate([output.argmax(-1) for output in _iterate_outputs(model, images, "logits", batch_size)])


def predict_labels(model, images, multi_label, batch_size=256):
    """Returns what the model says of each image, as labels have it: `predict_classes`, or rows of yes and no.

    Args:
        model, images, batch_size: as in `logits`.
        multi_label: whether an image may have several classes: a logit above 0 is then a yes.

    Returns:
        int64 `(samples,)` class ids; or uint8 `(samples, classes)`.
    """
    outputs = _iterate_outputs(model, images, "logits", batch_size)
    return np.concatenate([name_labels(output, multi_label) for output in outputs])


def name_labels(outputs, multi_label):
    """Returns what logits `(samples, classes)` say of each sample, as `predict_labels` does."""
    return (outputs > 0).astype("uint8") if multi_label else outputs.argmax(-1)


def embeddings(model, images, layer=EMBEDDING, batch_size=256):
    """Returns the outputs of a layer for all images, float32 `(samples, width)`.

    Args:
        model, images, batch_size: as in `logits`.
        layer: name of the layer, as in `LayerOutputs`: a layer inside a nested model is `"backbone/embedding"`.
    """
    return np.concatenate([*_iterate_outputs(model, images, layer, batch_size)])


def _iterate_outputs(model, images, layer, batch_size):
    # Not `model.predict`: it reads no inner layer, and would want a stream of images made into a data set first.
    outputs = LayerOutputs(model, [layer])
    for batch in data.iterate_batches(images, batch_size):
        output = outputs(resizing.resize_for_model(model, batch), training=False)[1][layer]
        yield keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
