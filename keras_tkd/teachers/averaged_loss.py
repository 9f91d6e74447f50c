"""A loss averaged over the teachers of an ensemble."""

import tensorflow as tf

from keras_tkd.losses.base import as_list, select
from keras_tkd.teachers.reader import key
from keras_tkd.utils.hyperparameters import share_hyperparameters


class AveragedLoss:
    """A distillation loss over the teachers of an ensemble, `sum_k w_k * loss(teacher k, student)`.

    It is to the `Distiller` what a `DistillationLoss` is.
    """

    def __init__(self, loss, ensemble):
        if ensemble.per_sample and loss.reduction == "mean_with_sample_weight":
            raise ValueError(
                f"`weights={ensemble.teacher_weights!r}` weights samples, and loss '{loss.name}' divides by the sum of "
                "their weights. Received: reduction='mean_with_sample_weight'. Take 'sum_over_batch_size'"
            )
        self.ensemble = ensemble
        # A loss that has layers makes them for one teacher's outputs.
        self.losses = [loss, *(copy_of(loss) if loss.owns_layers else loss for _ in ensemble.teachers[1:])]
        self.student_layers = loss.student_layers

    @property
    def teacher_layers(self):
        names = as_list("logits" if self.losses[0].teacher_layers is None else self.losses[0].teacher_layers)
        return [key(k, name) for k in range(len(self.losses)) for name in names]

    @property
    def layers(self):
        return [layer for loss in self.losses for layer in loss.layers]

    def build(self, teacher_shapes, student_shapes):
        given = dict(zip(self.teacher_layers, teacher_shapes, strict=True))
        for k, loss in enumerate(self.losses):
            loss.build(select(of_teacher(given, k), loss.teacher_layers), student_shapes)

    def inputs(self, teacher, student, labels, index):
        """The pairs that the loss reads, a teacher each, and the teachers' weights."""
        if self.ensemble.teacher_weights == "confidence" and labels is None:
            raise ValueError("`weights='confidence'` reads labels, and the data have none. Train on (x, labels).")
        outputs = [of_teacher(teacher, k) for k in range(len(self.losses))]
        shares = self.ensemble.shares([each.get("logits") for each in outputs], labels)
        pairs = [loss.inputs(each, student, labels, index) for loss, each in zip(self.losses, outputs, strict=True)]
        return pairs, shares

    def __call__(self, pairs, shares, sample_weight=None, training=False):
        total = 0.0
        for k, (loss, pair) in enumerate(zip(self.losses, pairs, strict=True)):
            if self.ensemble.per_sample:
                weight = shares[k] if sample_weight is None else shares[k] * tf.reshape(sample_weight, [-1])
                total += loss(*pair, sample_weight=weight, training=training)
            else:
                value = loss(*pair, sample_weight=sample_weight, training=training)
                total += tf.cast(shares[k], value.dtype) * value
        return total

    def statistics(self, pairs, shares):
        means = tf.reduce_mean(tf.reshape(shares, [len(self.losses), -1]), axis=1)
        each = [loss.statistics(*pair) for loss, pair in zip(self.losses, pairs, strict=True)]
        return {name: sum(means[k] * values[name] for k, values in enumerate(each)) for name in each[0]}


def of_teacher(outputs, k):
    """The dict of the teacher at position `k` out of that of all."""
    prefix = key(k, "")
    return {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}


def copy_of(loss):
    """A loss like `loss` with layers of its own, which follows the numbers that are set on `loss` while training."""
    copy = type(loss).from_config(loss.get_config())
    share_hyperparameters(loss, copy)
    return copy
