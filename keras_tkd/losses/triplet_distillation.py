"""Triplet loss for knowledge distillation."""

import keras
from keras import ops

from keras_tkd.losses.mining import TRIPLET_STATISTICS, MiningLoss, mean_of_valid, weighted_mean
from keras_tkd.losses.outputs import select
from keras_tkd.losses.validation import as_arrays
from keras_tkd.utils.distances import euclidean
from keras_tkd.utils.hyperparameters import read_hyperparameter

__all__ = ["TripletDistillation", "triplet_distillation"]


def triplet_distillation(anchor, positive, negative, margin=5.0):
    """Triplet loss, `max(d(anchor, positive) - d(anchor, negative) + margin, 0)`, d the Euclidean distance.

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
class TripletDistillation(MiningLoss):
    """Triplet loss with the teacher's output as the anchor (`tkd`).

    Pulls the student's output for an image (positive) towards the teacher's output for the same image (anchor), and
    pushes the student's output for an image of another class (negative) away from that anchor, until the negative is
    farther from it than the positive by the margin.

        loss_i = max( ||z_t(x_i) - z_s(x_i)|| - ||z_t(x_i) - z_s(n_i)|| + margin, 0 ),   n_i of another class than x_i

    on raw logits, Euclidean and not squared, without softmax or temperature.

    Args:
        margin: >= 0, default 5, in the unit of the logits. May be set while training.
        miner: how a negative is picked among the other images of the batch where the batch brings none, by its distance
            `||z_t(x_i) - z_s(x_j)||`: `"random"`, the default, uniform over the images of other classes; `"semi_hard"`,
            the nearest that is farther than the positive, or the farthest if there is none; `"hard"`, the nearest;
            `"all"`, each of them, and an anchor's value is then the mean over its negatives.
        negative_classes: what tells the classes of a batch apart: `"labels"`, the default, or `"teacher"`, the class
            that the teacher's final output names.
        seed: seed of the miner, default 0; with the training step it determines every choice.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`. Where both are named and give
            vectors of different width, the student's pass through a linear projector, a layer of the loss's own.

    Call, with negatives given: `loss(teacher_logits, {"positive": logits, "negative": logits})`.
    Call, negatives from the batch: `loss({"logits": teacher_logits, "labels": labels}, student_logits)`; the dict may
    also hold `"step"`, a scalar, and the second argument may be `{"positive": logits, "candidates": student_logits}`.
    With `negative_classes="teacher"` the labels are not read. All logits `(batch, classes)`, labels `(batch,)` class
    ids. An anchor whose batch has no other class has the value zero and no gradient, and does not count in the mean.

    In a `Distiller`, the batch's `"negative"` is the negative, and nothing is mined; the batch's `"positive"`, another
    image of the class, takes the place of the student's output for the same image.

    Raises:
        ValueError: negative margin; unknown miner or `negative_classes`; negatives to be mined without labels.

    Example:

    >>> loss = TripletDistillation(margin=5.0)
    >>> loss([[0.0, 0.0]], {"positive": [[3.0, 4.0]], "negative": [[0.0, 2.0]]})     # 5 - 2 + 5
    8.0

    Reference: Oki, Abe, Miyao, Kurita, "Triplet Loss for Knowledge Distillation", IJCNN 2020 (arXiv 2004.08116).
    Deviations: none with negatives given (PyTorch's triplet loss adds 1e-6 to each difference; this does not). Mining
    inside the batch is an addition: the paper draws each negative from the whole training set. Another image as the
    positive is one too, and so is the projector. The paper's Fig. 5 tells negatives apart by the soft target, its
    experiments by the label.
    """

    default_name = "tkd"
    statistic_names = TRIPLET_STATISTICS

    def inputs(self, teacher, student, labels, index):
        anchor, own = super().inputs(teacher, student, labels, index)
        positive = select(student["positive"], self.student_layers) if "positive" in student else own
        if "negative" in student:
            return anchor, {"positive": positive, "negative": select(student["negative"], self.student_layers)}
        # Only now: negatives that the batch brings need no labels.
        y_true = self.mining_inputs(anchor, teacher, student, labels)
        return y_true, {"positive": positive, "candidates": own} if "positive" in student else own

    def values(self, y_true, y_pred, training=False):
        positive, negative, valid = self._distances(y_true, y_pred)
        return mean_of_valid(ops.relu(positive[:, None] - negative + read_hyperparameter(self, "margin")), valid)

    def statistics(self, y_true, y_pred):
        """Returns means over the anchors that have a negative: both distances, and the share of violated margins."""
        positive, negative, valid = self._distances(as_arrays(y_true), as_arrays(y_pred))
        violated = ops.cast(positive[:, None] - negative + read_hyperparameter(self, "margin") > 0, self.dtype)
        weights = ops.cast(ops.any(valid, axis=1), self.dtype)
        means = positive, mean_of_valid(negative, valid), mean_of_valid(violated, valid)
        return {name: weighted_mean(values, weights) for name, values in zip(self.statistic_names, means, strict=True)}

    def valid(self, y_true, y_pred):
        # A negative that is given always counts.
        if isinstance(y_pred, dict) and "negative" in y_pred:
            return {}
        _, _, valid = self._distances(y_true, y_pred)
        return dict.fromkeys(("loss", *self.statistic_names), ops.any(valid, axis=1))

    def _distances(self, y_true, y_pred):
        """Returns the positives' distances, `(batch,)`, the negatives', `(batch, k)`, and which of these are valid."""
        y_true = y_true if isinstance(y_true, dict) else {"logits": y_true}
        anchor = self.cast(y_true["logits"])
        # Each tensor is cast once, so that its gradient is summed before it is rounded.
        y_pred = keras.tree.map_structure(self.project, y_pred)
        y_pred = y_pred if isinstance(y_pred, dict) else {"positive": y_pred, "candidates": y_pred}
        positive = self.distances(anchor, y_pred["positive"])
        if "negative" in y_pred:
            negative = self.distances(anchor, y_pred["negative"])[:, None]
            return positive, negative, ops.ones_like(negative, dtype="bool")
        return positive, *self.negative_distances(anchor, y_pred["candidates"], y_true, positive)
