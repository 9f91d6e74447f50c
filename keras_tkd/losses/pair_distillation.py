"""Contrastive loss for knowledge distillation, between pairs of a teacher's and a student's output."""

import keras
import tensorflow as tf
from keras import ops

from keras_tkd.losses.mining import MiningLoss, mean_of_valid, weighted_mean
from keras_tkd.losses.outputs import select
from keras_tkd.losses.validation import as_arrays, check_same_shape
from keras_tkd.miners import fair_coin, random_same_class
from keras_tkd.utils.distances import euclidean
from keras_tkd.utils.hyperparameters import read_hyperparameter

__all__ = ["PairDistillation", "pair_distillation"]


def pair_distillation(anchor, partner, same, margin=5.0):
    """Contrastive loss, `same * d^2 + (1 - same) * max(margin - d, 0)^2`, d the Euclidean distance.

    Args:
        anchor: `(batch, classes)`, the teacher's logits for an image.
        partner: the student's logits for the same or another image.
        same: `(batch,)`, 1 where the partner is of the anchor's class, else 0.
        margin: >= 0, in the unit of the logits.

    Returns:
        `(batch,)`.
    """
    return _pair_values(euclidean(anchor, partner), ops.cast(same, anchor.dtype), margin)


def _pair_values(distance, same, margin):
    return same * ops.square(distance) + (1.0 - same) * ops.square(ops.relu(margin - distance))


@keras.saving.register_keras_serializable(package="keras_tkd")
class PairDistillation(MiningLoss):
    """Contrastive loss between the teacher's output for an image and the student's for its partner (`pairs`).

    Pulls the student's output for an image of the anchor's class to the teacher's output for the anchor, and pushes
    its output for an image of another class away from it, until it is farther than the margin.

        loss_i = l_i d_i^2 + (1 - l_i) max(margin - d_i, 0)^2,      d_i = ||z_t(x_i) - z_s(x_j)||

    with l_i = 1 where the partner x_j is of the class of x_i, else 0; on raw logits, without softmax or temperature.

    Args:
        margin: >= 0, default 5, in the unit of the logits. May be set while training.
        miner: how a partner of another class is picked in the batch where the batch brings none: `"random"` (the
            default), `"semi_hard"`, `"hard"` or `"all"`, as in `TripletDistillation`; semi-hard is farther than the
            student's output for the anchor's own image.
        negative_classes: what tells the classes of a batch apart: `"labels"`, the default, or `"teacher"`, the class
            that the teacher's final output names.
        seed: seed of the choice of partners, default 0; with the training step it determines every choice.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`. Where both are named and give
            vectors of different width, the student's pass through a linear projector, a layer of the loss's own.

    Call, with pairs given: `loss({"logits": teacher_logits, "same": l}, partner_logits)`; in a `Distiller`, where the
    batch has `"partner"` and `"same"`.
    Call, partners from the batch: `loss({"logits": teacher_logits, "labels": labels}, student_logits)`; the dict may
    also hold `"step"`, a scalar. A fair coin for each anchor says whether its partner is another image of its class,
    uniform (its own, where there is no other), or one of another class; an anchor whose coin says "another class" and
    whose batch has none has the value zero and no gradient, and does not count in the mean. All logits
    `(batch, classes)`, labels and l `(batch,)`.

    Raises:
        ValueError: negative margin; unknown miner or `negative_classes`; partners to be picked without labels.

    Example:

    >>> loss = PairDistillation(margin=5.0, reduction=None)
    >>> loss({"logits": [[0.0, 0.0], [0.0, 0.0]], "same": [1, 0]}, [[3.0, 4.0], [0.0, 2.0]])    # 5^2, (5 - 2)^2
    [25.0, 9.0]

    Reference: the pairs ("Siamese") of Oki, Abe, Miyao, Kurita, "Triplet Loss for Knowledge Distillation", IJCNN 2020
    (arXiv 2004.08116). The formula is our reading of the paper's Fig. 1, with half of the pairs of the same class as in
    the authors' data of pairs; it is not confirmed by them. Its form is that of Hadsell, Chopra, LeCun, CVPR 2006, but
    for the factor 1/2. Picking partners inside the batch is an addition, and so is the projector.
    """

    default_name = "pairs"
    statistic_names = ("same_distance", "other_distance", "violated")

    def inputs(self, teacher, student, labels, index):
        anchor, own = super().inputs(teacher, student, labels, index)
        if "partner" not in student:
            return self.mining_inputs(anchor, teacher, student, labels), own
        if "same" not in student:
            raise ValueError(
                f"Loss '{self.name}' needs to know which partners are of their anchor's class. Received: a batch with "
                '"partner" and without "same". See `keras_tkd.data.pair_dataset`.'
            )
        return {"logits": anchor, "same": student["same"]}, select(student["partner"], self.student_layers)

    def values(self, y_true, y_pred, training=False):
        same, valid, distances = self._pairs(y_true, y_pred)
        return mean_of_valid(_pair_values(distances, same[:, None], read_hyperparameter(self, "margin")), valid)

    def statistics(self, y_true, y_pred):
        """Returns the mean distance of pairs of one class, that of others, and the share of these inside the margin."""
        same, valid, distances = self._pairs(as_arrays(y_true), as_arrays(y_pred))
        inside = ops.cast(distances < read_hyperparameter(self, "margin"), self.dtype)
        distance, inside = mean_of_valid(distances, valid), mean_of_valid(inside, valid)
        counted = self.valid(y_true, y_pred)
        of_same, of_other = (ops.cast(counted[name], self.dtype) for name in self.statistic_names[:2])
        means = weighted_mean(distance, of_same), weighted_mean(distance, of_other), weighted_mean(inside, of_other)
        return dict(zip(self.statistic_names, means, strict=True))

    def valid(self, y_true, y_pred):
        same, valid, _ = self._pairs(as_arrays(y_true), as_arrays(y_pred))
        has_partner, same = ops.any(valid, axis=1), ops.cast(same, "bool")
        of_other = ops.logical_and(has_partner, ops.logical_not(same))
        statistics = ops.logical_and(has_partner, same), of_other, of_other
        return {"loss": has_partner} | dict(zip(self.statistic_names, statistics, strict=True))

    def _pairs(self, y_true, y_pred):
        """Returns which anchors are paired within their class, `(batch,)`, and partners, `(batch, k)`.

        Of the partners: which are valid, and their distances.
        """
        y_true = y_true if isinstance(y_true, dict) else {"logits": y_true}
        anchor, student = self.cast(y_true["logits"]), self.project(y_pred)
        own = self.distances(anchor, student)
        if "same" in y_true:
            same = ops.reshape(self.cast(y_true["same"]), [-1])
            check_same_shape(self.name, same, own)
            return same, ops.ones_like(own, dtype="bool")[:, None], own[:, None]
        seed, classes = self.step_seed(y_true), self.classes(y_true)
        others, valid = self.negative_distances(anchor, student, y_true, own)
        # Whether the mate is another image does not matter: one that is alone in its class is paired with itself.
        mate, _ = random_same_class(classes, seed)
        to_mate = euclidean(anchor, tf.gather(student, mate))[:, None]
        same = fair_coin(classes, seed)
        # A pair within the class stands in the first column alone.
        first = tf.range(tf.shape(others)[1]) == 0
        valid = tf.where(same[:, None], first, valid)
        return tf.cast(same, self.dtype), valid, tf.where(same[:, None], to_mate, others)
