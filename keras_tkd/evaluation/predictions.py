"""What a model knows, measured on images it was not trained on."""

import keras
import numpy as np

from keras_tkd import data
from keras_tkd.utils import resizing
from keras_tkd.utils.layer_outputs import LayerOutputs

EMBEDDING = "embedding"  # the layer's name in this package's models


def logits(model, images, batch_size=256):
    """The model's outputs for all images, float32 `(samples, classes)`; `images` as in `keras_tkd.data`.

    Images of another height or width than the model takes are resized for it, as the `Distiller` does for a teacher.
    """
    return np.concatenate([*layer_outputs(model, images, "logits", batch_size)])


def predict_classes(model, images, batch_size=256):
    """The class that the model names for each image, int64 `(samples,)`; no outputs are kept."""
    return np.concatenate([output.argmax(-1) for output in layer_outputs(model, images, "logits", batch_size)])


def embeddings(model, images, layer=EMBEDDING, batch_size=256):
    """The outputs of a layer for all images, float32 `(samples, width)`; `layer` is named as in `LayerOutputs`."""
    return np.concatenate([*layer_outputs(model, images, layer, batch_size)])


def layer_outputs(model, images, layer, batch_size):
    """Yields what a layer puts out, batch by batch."""
    outputs = LayerOutputs(model, [layer])
    for shown in data.iterate_batches(images, batch_size):
        output = outputs(resizing.resized(model, shown), training=False)[1][layer]
        yield keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
