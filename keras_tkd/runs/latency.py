"""Latency of models, for people to look at: nothing is decided by it."""

import tensorflow as tf

from keras_tkd import data
from keras_tkd.export.measurement import measure_latency
from keras_tkd.teachers.ensemble import flatten_ensemble
from keras_tkd.utils.layer_outputs import LayerOutputs
from keras_tkd.utils.resizing import resize_for_model

__all__ = ["measure_model_latency"]

# At least and at most, and the seconds after which they end in between: less than a run takes to begin.
_CALLS, _SECONDS = (5, 50), 0.3


def measure_model_latency(model, images):
    """Returns the milliseconds that a call of a model with one image takes, the median of some.

    That is on this machine, and with what else goes on there. The models of an ensemble are called one after another.

    Args:
        model: a `keras.Model` or an ensemble.
        images: images as the model sees them, an array or a stream; the first is taken.
    """
    image = next(iter(data.iterate_batches(images, 1)))[:1]
    each = [_measure(member, image) for member in flatten_ensemble(model)]
    return float(f"{sum(each):.4g}")


def _measure(model, image):
    outputs = LayerOutputs(model)
    # In a graph, as a program that serves the model would have it: without, Python takes most of the time.
    call = tf.function(lambda batch: outputs(batch)[1]["logits"], autograph=False)
    batch = tf.convert_to_tensor(resize_for_model(model, image))
    # Copied out, for a GPU answers before it has computed.
    return measure_latency(lambda batch: call(batch).numpy(), batch, calls=_CALLS, seconds=_SECONDS).median_ms
