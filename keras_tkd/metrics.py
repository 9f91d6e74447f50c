"""Metrics for training an embedding with triplets, and for images of several classes."""

import keras
import tensorflow as tf

from keras_tkd.losses.mining import TRIPLET_STATISTICS
from keras_tkd.losses.triplet_loss import TripletLoss, triplet_statistics

__all__ = ["ExactMatch", "TripletStatistics"]


@keras.saving.register_keras_serializable(package="keras_tkd")
class ExactMatch(keras.metrics.MeanMetricWrapper):
    """Share of images of which every class is answered right, for multi-hot labels and logits.

    A logit above 0 is a yes, and a label above 1/2, which a mixed image may have, is one as well.

    Args:
        name, dtype: as in `keras.metrics.Metric`.

    Call: `update_state(labels, logits)`, both `(batch, classes)`.

    Example: of the first image one of the two classes is answered wrong.

    >>> ExactMatch()([[1, 0], [0, 1]], [[2.0, 3.0], [-1.0, 1.0]])
    0.5
    """

    def __init__(self, name="exact_match", dtype=None):
        super().__init__(_match_exactly, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def _match_exactly(labels, logits):
    right = tf.equal(tf.convert_to_tensor(logits) > 0, tf.cast(labels, "float32") > 0.5)
    return tf.cast(tf.reduce_all(right, axis=-1), "float32")


@keras.saving.register_keras_serializable(package="keras_tkd")
class TripletStatistics(keras.metrics.Metric):
    """Mean distances and violated margins in the triplets of a `TripletLoss`, for `compile(metrics=[...])`.

    The triplets, their distances and the margin, as it is at the time, are those of the loss. An anchor's value is the
    mean over its triplets, and the metric is the mean over all anchors of an epoch that have a triplet. One metric puts
    three numbers into the logs:

        NAME_positive_distance    ||f_i - f_p||
        NAME_negative_distance    ||f_i - f_n||
        NAME_violated             share, 0..1, of triplets with ||f_i - f_p|| - ||f_i - f_n|| + margin > 0

    Args:
        loss: a `TripletLoss`, the one given to `compile`. In a model that is loaded, it is a copy of that loss.
        name: NAME; None is the loss's name.
        dtype: as in `keras.metrics.Metric`.

    Call: `update_state(labels, embeddings)`, as the loss is called; under `weighted_metrics` anchors are weighted.
    `result()` is a dict of three scalars, 0 where there was no triplet.

    Raises:
        ValueError: a loss of another class; labels that are no class ids.

    Example:

    >>> statistics = TripletStatistics(TripletLoss(margin=3.0))
    >>> statistics([0, 0, 1], [[0.0], [3.0], [7.0]])    # 3 - 7 + 3 < 0 and 3 - 4 + 3 > 0; the third has no positive
    {"triplet_positive_distance": 3.0, "triplet_negative_distance": 5.5, "triplet_violated": 0.5}
    """

    def __init__(self, loss, name=None, dtype=None):
        if not isinstance(loss, TripletLoss):
            raise ValueError(f"`loss` must be a keras_tkd.losses.TripletLoss. Received: loss={loss!r}")
        super().__init__(name=name or loss.name, dtype=dtype)
        self.loss = loss
        # Sums and a count, and not a mean of the batches' means: batches differ in how many anchors have a triplet.
        self.totals = self.add_variable((len(TRIPLET_STATISTICS),), initializer="zeros", name="totals")
        self.anchors = self.add_variable((), initializer="zeros", name="anchors")

    def update_state(self, y_true, y_pred, sample_weight=None):
        *means, valid = self.loss.evaluate_rows(triplet_statistics, y_true, y_pred)
        weights = tf.cast(valid, self.dtype)
        if sample_weight is not None:
            weights *= tf.reshape(tf.cast(sample_weight, self.dtype), [-1])
        self.totals.assign_add(tf.linalg.matvec(tf.cast(tf.stack(means), self.dtype), weights))
        self.anchors.assign_add(tf.reduce_sum(weights))

    def result(self):
        means = tf.unstack(tf.math.divide_no_nan(self.totals.value, self.anchors.value))
        return {f"{self.name}_{statistic}": mean for statistic, mean in zip(TRIPLET_STATISTICS, means, strict=True)}

    def get_config(self):
        return {"loss": keras.saving.serialize_keras_object(self.loss), "name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})
