"""Predictions of a model for many images, batch by batch."""

import keras
import numpy as np

from keras_tkd import data
from keras_tkd.data.options import count_batches
from keras_tkd.utils import resizing
from keras_tkd.utils.layer_outputs import LayerOutputs

__all__ = ["EMBEDDING", "embeddings", "logits", "name_labels", "predict_classes", "predict_labels"]

EMBEDDING = "embedding"  # the layer's name in this package's models


def logits(model, images, batch_size=256, workers=None):
    """Returns the model's outputs for all images.

    Images of another height or width than the model takes are resized for it, as the `Distiller` does for a teacher.

    Args:
        model: a `keras.Model`.
        images: `(samples, height, width, channels)`, an array or an `ImageStream`.
        batch_size: images in a forward pass.
        workers: the processes that share the batches out and all have what comes of them, in the end: `share`,
            `(number of this one, how many they are)`, and `gather_rows`, a function from an array to those of all, in
            their order, as one. All must call it alike. None computes everything here.

    Returns:
        float32 `(samples, num_classes)`.
    """
    return _collect(model, images, "logits", batch_size, workers)


def predict_classes(model, images, batch_size=256, workers=None):
    """Returns the class that the model predicts for each image, int64 `(samples,)`.

    Arguments are those of `logits`, whose outputs of all images at once would take memory with many classes.
    """
    return _collect(model, images, "logits", batch_size, workers, lambda output: output.argmax(-1))


def predict_labels(model, images, multi_label, batch_size=256, workers=None):
    """Returns what the model says of each image, as labels have it: `predict_classes`, or rows of yes and no.

    Args:
        model, images, batch_size, workers: as in `logits`.
        multi_label: whether an image may have several classes: a logit above 0 is then a yes.

    Returns:
        int64 `(samples,)` class ids; or uint8 `(samples, classes)`.
    """
    return _collect(model, images, "logits", batch_size, workers, lambda output: name_labels(output, multi_label))


def name_labels(outputs, multi_label):
    """Returns what logits `(samples, classes)` say of each sample, as `predict_labels` does."""
    return (outputs > 0).astype("uint8") if multi_label else outputs.argmax(-1)


def embeddings(model, images, layer=EMBEDDING, batch_size=256, workers=None):
    """Returns the outputs of a layer for all images, float32 `(samples, width)`.

    Args:
        model, images, batch_size, workers: as in `logits`.
        layer: name of the layer, as in `LayerOutputs`: a layer inside a nested model is `"backbone/embedding"`.
    """
    return _collect(model, images, layer, batch_size, workers)


def _collect(model, images, layer, batch_size, workers, reduce=lambda output: output):
    """Returns what `reduce` makes of a layer's outputs, batch by batch, for all images."""
    outputs, count = LayerOutputs(model, [layer]), count_batches(len(images), batch_size)
    index, sharing = (0, 1) if workers is None or workers.share is None else workers.share
    # A batch is what it is in one process, and so are its bits. Where not all have one, nobody waits for others.
    shared = 1 < sharing <= count
    first, end = (count * index // sharing, count * (index + 1) // sharing) if shared else (0, count)
    rows = []
    # Not `model.predict`: it reads no inner layer, and would want a stream of images made into a data set first.
    for batch in data.iterate_batches(images, batch_size, first, end):
        output = outputs(resizing.resize_for_model(model, batch), training=False)[1][layer]
        rows.append(reduce(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))))
    rows = np.concatenate(rows)
    return workers.gather_rows(rows) if shared else rows
