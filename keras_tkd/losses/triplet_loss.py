"""Triplet loss for embeddings: plain metric learning, without a teacher."""

import keras
import tensorflow as tf
from keras import ops

from keras_tkd.losses.mining import mean_of_valid
from keras_tkd.losses.reduction import reduce_values
from keras_tkd.losses.validation import as_arrays, check_choice, check_same_batch, is_labels
from keras_tkd.miners import MINERS, POSITIVE_MINERS, count_up_to, only_where, other_class
from keras_tkd.utils.distances import pairwise_euclidean
from keras_tkd.utils.fixed_attributes import FixedAttributes
from keras_tkd.utils.hyperparameters import Hyperparameter, read_hyperparameter

__all__ = ["TripletLoss", "triplet_loss", "triplet_statistics"]


def triplet_loss(labels, embeddings, margin=0.2, miner="semi_hard", seed=(0, 0)):
    """Triplet loss, the mean over a row's triplets of `max(d(row, positive) - d(row, negative) + margin, 0)`.

    As `TripletLoss` has it.

    Args:
        labels: `(batch,)` class ids.
        embeddings: `(batch, size)`.
        margin: >= 0, in the unit of the embeddings.
        miner: a name in `keras_tkd.miners.MINERS`.
        seed: two integers, for the random miner.

    Returns:
        `(batch,)`.
    """
    values, _ = _compute_rows(labels, embeddings, margin, miner, seed)
    return values


def _compute_rows(labels, embeddings, margin, miner, seed):
    """Returns the values of `triplet_loss`, and bool `(batch,)`, whether the row has a triplet."""
    positive, mates, negative, others = _mine_triplets(labels, embeddings, miner, seed)
    if miner == "all":
        violation = _mean_violation(positive + margin, negative, others)
    else:
        violation = ops.relu(positive - negative + margin)
    return mean_of_valid(violation, mates), tf.reduce_any(mates, axis=1)


def triplet_statistics(labels, embeddings, margin=0.2, miner="semi_hard", seed=(0, 0)):
    """Computes means over a row's triplets, those of `triplet_loss` with the same arguments.

    Returns:
        `(positive_distance, negative_distance, violated, valid)`, `(batch,)` each: both distances, the share of
        triplets whose margin is violated, and bool, whether the row has a triplet; where not, the means say nothing.
    """
    positive, mates, negative, others = _mine_triplets(labels, embeddings, miner, seed)
    if miner == "all":
        violated = _share_below(positive + margin, negative, others)
    else:
        violated = ops.cast(positive - negative + margin > 0, positive.dtype)
    means = mean_of_valid(positive, mates), mean_of_valid(negative, others), mean_of_valid(violated, mates)
    return *means, tf.reduce_any(mates, axis=1)


def _mine_triplets(labels, embeddings, miner, seed):
    """Returns distances of each row's positives, which of them stand in a triplet, and the same for its negatives.

    All are `(batch, k)`. A positive's negative is that of its column; under `"all"` it is each valid one of the row.
    """
    distances = pairwise_euclidean(embeddings)
    index, mates = _as_columns(*POSITIVE_MINERS[miner](labels, seed, distances))
    positive = tf.gather(distances, index, batch_dims=1)
    if miner == "all":
        others = other_class(labels)
        return positive, mates & tf.reduce_any(others, axis=1, keepdims=True), distances, others
    index, others = _as_columns(*MINERS[miner](labels, seed, distances, positive))
    return positive, mates & others, tf.gather(distances, index, batch_dims=1), mates & others


def _as_columns(index, valid):
    """Returns what a miner returns as `(batch, k)`, k = 1 where it returns one row for each anchor."""
    return (index, valid) if len(index.shape) == 2 else (index[:, None], valid[:, None])


def _mean_violation(limits, distances, others):
    """Mean over the row's negatives of `max(limit - distance, 0)`, for each of the row's limits.

    Args:
        limits: `(batch, m)`.
        distances: `(batch, n)`.
        others: bool `(batch, n)`, which are negatives.

    Returns:
        `(batch, m)`.
    """
    # By sorting: the first c of the row's negatives, nearest first, are nearer than the limit, and add up to
    # `c * limit - (sum of their distances)`. No tensor of all triplets is made. In float64, as sums cancel here.
    limits, distances, dtype = tf.cast(limits, tf.float64), tf.cast(distances, tf.float64), limits.dtype
    candidates = only_where(others, distances)
    nearest_first = tf.gather(tf.where(others, distances, 0.0), tf.argsort(candidates, axis=1), batch_dims=1)
    sums = tf.cumsum(tf.pad(nearest_first, [[0, 0], [1, 0]]), axis=1)
    count = count_up_to(candidates, limits)
    total = tf.cast(count, tf.float64) * limits - tf.gather(sums, count, batch_dims=1)
    negatives = tf.reduce_sum(tf.cast(others, tf.float64), axis=1, keepdims=True)
    return tf.cast(total / tf.maximum(negatives, 1.0), dtype)


def _share_below(limits, distances, others):
    """Share of the row's negatives that are nearer than each of the row's limits, by sorting too.

    Args and Returns: as in `_mean_violation`.
    """
    negated = -only_where(others, distances)
    # Of the negated, those that are no negatives are minus infinity, and never above a limit.
    count = tf.shape(distances)[1] - count_up_to(negated, -limits)
    negatives = tf.reduce_sum(tf.cast(others, limits.dtype), axis=1, keepdims=True)
    return tf.cast(count, limits.dtype) / tf.maximum(negatives, 1.0)


@keras.saving.register_keras_serializable(package="keras_tkd")
class TripletLoss(FixedAttributes, keras.losses.Loss):
    """Triplet loss between the embeddings of a batch, for `model.fit` on labels.

    Pulls embeddings of one class together and pushes those of different classes apart, until each anchor's negative is
    farther from it than its positive by the margin.

        loss_i = mean over the triplets (i, p, n) of  max( ||f_i - f_p|| - ||f_i - f_n|| + margin, 0 )

    with p another row of the class of i, and n a row of another class; Euclidean distances, not squared, of embeddings
    as the model gives them (for embeddings of norm 1, end the model in `keras.layers.UnitNormalization()`).

    Args:
        margin: >= 0, default 0.2, in the unit of the embeddings. May be set while training.
        miner: which triplets of an anchor count. `"semi_hard"`, the default: every positive, each with the nearest
            negative that is farther than it, or the farthest if there is none (FaceNet). `"hard"`: the farthest
            positive with the nearest negative ("batch hard"). `"all"`: every positive with every negative ("batch
            all"). `"random"`: one positive and one negative, uniform.
        seed: of the random miner, default 0, which picks by rows' places and labels: the same in every step, for data
            that come in a fresh order in each epoch.
        name, reduction, dtype: as in `keras.losses.Loss`.

    Call: `loss(labels, embeddings)`, labels `(batch,)` or `(batch, 1)` class ids, embeddings `(batch, size)`; one value
    per row before the reduction. A row without a positive or without a negative has the value zero and no gradient, and
    does not count in the mean. Batches need several rows of a class: `keras_tkd.data.class_batches` makes them. Memory
    and time are those of sorting a (batch, batch) matrix. Keras's `loss` of an epoch weights each batch by all its
    rows, those that have no triplet included; `keras_tkd.metrics.TripletStatistics` counts anchors.

    Raises:
        ValueError: negative margin; unknown miner; labels that are no class ids.

    Example:

    >>> loss = TripletLoss(margin=1.0, miner="all", reduction=None)
    >>> loss([0, 0, 1], [[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]])    # 5 - 2 + 1, 5 - sqrt(13) + 1, no positive
    [4.0, 2.394449, 0.0]

    Reference: Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015 (arXiv 1503.03832): semi-hard; Hermans, Beyer,
    Leibe, "In Defense of the Triplet Loss", 2017 (arXiv 1703.07737): hard and all. Deviations: distances are not
    squared as they are in FaceNet; the mean is over all triplets of a row, then over the rows that have one, and never
    over those triplets alone whose value is not zero.
    """

    margin = Hyperparameter(minimum=0.0)
    _FIXED = ("miner", "seed")

    def __init__(self, margin=0.2, miner="semi_hard", seed=0, name="triplet", **common):
        super().__init__(name=name, **common)
        check_choice("miner", miner, MINERS)
        self.margin = margin
        self.miner = miner
        self.seed = seed

    # Not `call`, which Keras gives labels that are cast already: float32 could not tell large class ids apart.
    def __call__(self, y_true, y_pred, sample_weight=None):
        values, valid = self.evaluate_rows(_compute_rows, y_true, y_pred)
        return reduce_values(self, values, y_pred, sample_weight, valid)

    def evaluate_rows(self, function, labels, embeddings):
        """Returns what `triplet_loss` or `triplet_statistics` gives for the rows, by the loss's margin, miner, seed."""
        labels, embeddings = as_arrays(labels), as_arrays(embeddings)
        # The labels stay as they are: the loss's dtype could not tell large ones apart.
        labels, embeddings = tf.convert_to_tensor(labels), ops.convert_to_tensor(embeddings, dtype=self.dtype)
        if len(embeddings.shape) != 2 or not is_labels(labels):
            raise ValueError(
                f"Loss '{self.name}' compares embeddings (batch, size) by class ids (batch,). "
                f"Received: embeddings {embeddings.shape}, labels {labels.shape}"
            )
        check_same_batch(self.name, embeddings, labels)
        margin = read_hyperparameter(self, "margin")
        # The second number is the step's, of which Keras tells a loss nothing.
        return function(tf.reshape(labels, [-1]), embeddings, margin, self.miner, [self.seed, 0])

    def get_config(self):
        own = {"margin": self.margin, "miner": self.miner, "seed": self.seed}
        return {**super().get_config(), **own, "dtype": self.dtype}
