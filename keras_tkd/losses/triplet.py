"""Triplet loss for knowledge distillation."""

import keras
import tensorflow as tf
from keras import ops

from keras_tkd.distances import euclidean
from keras_tkd.live import LiveAttribute
from keras_tkd.losses.base import LogitsLoss, arrays, check_same_shape, select
from keras_tkd.miners import MINERS


def triplet_distillation(anchor, positive, negative, margin=5.0):
    """`max(d(anchor, positive) - d(anchor, negative) + margin, 0)` per sample, d the Euclidean distance.

    Args:
        anchor: `(batch, classes)`, the teacher's logits for an image.
        positive: the student's logits for the same image.
        negative: the student's logits for an image of another class.
        margin: >= 0, in the unit of the logits.

    Returns:
        `(batch,)`.
    """
    return ops.relu(euclidean(anchor, positive) - euclidean(anchor, negative) + margin)


@keras.saving.register_keras_serializable(package="keras_tkd")
class TripletDistillation(LogitsLoss):
    """Triplet loss with the teacher's output as the anchor (`tkd`).

    Pulls the student's output for an image (positive) towards the teacher's output for the same image (anchor), and
    pushes the student's output for an image of another class (negative) away from that anchor, until the negative is
    farther from it than the positive by the margin.

        loss_i = max( ||z_t(x_i) - z_s(x_i)|| - ||z_t(x_i) - z_s(n_i)|| + margin, 0 ),   n_i of another class than x_i

    on raw logits, Euclidean and not squared, without softmax or temperature.

    Args:
        margin: >= 0, in the unit of the logits. May be set while training.
        miner: how a negative is picked among the other images of the batch where the batch brings none: `"random"`,
            uniform over the images of other classes.
        seed: seed of the miner; with the training step it determines every choice.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call, with negatives given: `loss(teacher_logits, {"positive": logits, "negative": logits})`.
    Call, negatives from the batch: `loss({"logits": teacher_logits, "labels": labels}, student_logits)`; the dict may
    also hold `"step"`, a scalar. All logits `(batch, classes)`, labels `(batch,)` class ids. An anchor whose batch has
    no other class contributes zero, to the mean and to the gradient.

    Raises:
        ValueError: negative margin; unknown miner; negatives to be mined without labels.

    Example:

    >>> loss = TripletDistillation(margin=5.0)
    >>> loss([[0.0, 0.0]], {"positive": [[3.0, 4.0]], "negative": [[0.0, 2.0]]})     # 5 - 2 + 5
    8.0

    Reference: Oki, Abe, Miyao, Kurita, "Triplet Loss for Knowledge Distillation", IJCNN 2020 (arXiv 2004.08116).
    Deviations: none with negatives given (PyTorch's triplet loss adds 1e-6 to each difference; this does not). Mining
    inside the batch is an addition: the paper draws each negative from the whole training set.
    """

    statistic_names = ("positive_distance", "negative_distance", "violated")
    margin = LiveAttribute(minimum=0.0)

    def __init__(
        self,
        margin=5.0,
        miner="random",
        seed=0,
        teacher_layers=None,
        student_layers=None,
        name="tkd",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(teacher_layers, student_layers, name, reduction, dtype)
        if not isinstance(miner, str) or miner not in MINERS:
            raise ValueError(f"`miner` must be one of {sorted(MINERS)}. Received: miner={miner!r}")
        self.margin = margin
        self.miner = miner
        self.seed = seed

    def inputs(self, teacher, student, labels, index):
        anchor, positive = super().inputs(teacher, student, labels, index)
        if "negative" in student:
            return anchor, {"positive": positive, "negative": select(student["negative"], self.student_layers)}
        if labels is None:
            raise ValueError(
                f"Loss '{self.name}' picks negatives inside the batch by their labels, and the data have none. "
                'Train on (x, labels), or on batches {"image": ..., "negative": ...}.'
            )
        return {"logits": anchor, "labels": labels, "step": student["step"]}, positive

    def __call__(self, y_true, y_pred, sample_weight=None, training=False):
        # Mining comes before everything is cast to the loss's dtype, which could not tell large labels apart.
        return super().__call__(*self._with_negatives(arrays(y_true), arrays(y_pred)), sample_weight, training)

    def call(self, y_true, y_pred):
        positive, negative, valid = self._distances(y_true, y_pred)
        values = ops.relu(positive - negative + self._margin())
        return values if valid is None else ops.where(valid, values, ops.zeros_like(values))

    def statistics(self, y_true, y_pred):
        """Means over the anchors that have a negative: both distances, and the share of violated margins."""
        pair = self._with_negatives(arrays(y_true), arrays(y_pred))
        pair = keras.tree.map_structure(lambda x: ops.convert_to_tensor(x, dtype=self.dtype), pair)
        positive, negative, valid = self._distances(*pair)
        weights = ops.ones_like(positive) if valid is None else ops.cast(valid, self.dtype)
        violated = ops.cast(positive - negative + self._margin() > 0, self.dtype)
        count = ops.maximum(ops.sum(weights), 1.0)
        means = [ops.sum(values * weights) / count for values in (positive, negative, violated)]
        return dict(zip(self.statistic_names, means, strict=True))

    def get_config(self):
        return {**super().get_config(), "margin": self.margin, "miner": self.miner, "seed": self.seed}

    def _margin(self):
        return TripletDistillation.margin.live(self).tensor(self.dtype)

    def _with_negatives(self, y_true, y_pred):
        """`y_true` and `y_pred` with negatives picked in the batch where none are given."""
        if isinstance(y_pred, dict):
            return y_true, y_pred
        if not isinstance(y_true, dict):
            raise ValueError(
                'Negatives are needed: `loss(teacher, {"positive": ..., "negative": ...})`, or labels to pick them by: '
                f'`loss({{"logits": teacher, "labels": labels}}, student)`. Received: y_true={y_true}'
            )
        labels = tf.convert_to_tensor(y_true["labels"])
        if len(labels.shape) != 1 and labels.shape[1:] != (1,):
            raise ValueError(f"`labels` must be class ids of shape (batch,). Received: labels of shape {labels.shape}")
        labels = tf.reshape(labels, [-1])
        step = tf.cast(y_true.get("step", 0), tf.int32)
        index, valid = MINERS[self.miner](labels, tf.stack([self.seed, step]))
        positive = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        negative = ops.take(positive, index, axis=0)
        return {"logits": y_true["logits"], "valid": valid}, {"positive": positive, "negative": negative}

    def _distances(self, y_true, y_pred):
        """Anchor-positive and anchor-negative distances, and which anchors have a negative (None: all)."""
        anchor, valid = (y_true["logits"], y_true.get("valid")) if isinstance(y_true, dict) else (y_true, None)
        positive, negative = y_pred["positive"], y_pred["negative"]
        check_same_shape(self.name, anchor, positive)
        check_same_shape(self.name, positive, negative)
        valid = None if valid is None else ops.not_equal(valid, 0)
        return euclidean(anchor, positive), euclidean(anchor, negative), valid
