"""A distillation loss averaged over the teachers of an ensemble."""

import keras
import tensorflow as tf

from keras_tkd.losses.base import DistillationLoss
from keras_tkd.losses.outputs import as_list, select
from keras_tkd.losses.validation import check_per_sample
from keras_tkd.teachers.ensemble import TeacherEnsemble
from keras_tkd.teachers.reader import output_key
from keras_tkd.teachers.weighting import check_teacher_weights, compute_shares, is_per_sample
from keras_tkd.utils.hyperparameters import share_hyperparameters
from keras_tkd.utils.keras_graph import copy_mask

__all__ = ["AveragedLoss", "average_over_teachers"]


@keras.saving.register_keras_serializable(package="keras_tkd")
class AveragedLoss(DistillationLoss):
    """A distillation loss averaged over several teachers.

        sum_k w_k * loss(teacher k, student)

    The Distiller makes it of each of its losses where its teacher is a `TeacherEnsemble` of `average="losses"`.

    Args:
        loss: `DistillationLoss`. One with layers of its own has them once for each teacher.
        teacher_weights: the weights w_k, see `TeacherEnsemble`.
        count: number of teachers.

    Call: `loss({"teachers": [y_true, ...], "shares": shares}, [y_pred, ...])`, what `loss` reads of each teacher and
    of the student, and w_k as `(teachers,)`, or `(teachers, batch)` where each sample has its own.

    Raises:
        ValueError: weights per sample for a loss that divides by the sum of its sample weights; in the Distiller also:
            data without labels for weights that read them.
    """

    def __init__(self, loss, teacher_weights, count):
        teacher_weights = check_teacher_weights(teacher_weights, count)
        if is_per_sample(teacher_weights, count) and loss.reduction == "mean_with_sample_weight":
            raise ValueError(
                f"`teacher_weights={teacher_weights!r}` weights samples, and loss '{loss.name}' divides by the sum of "
                "their weights. Received: reduction='mean_with_sample_weight'. Take 'sum_over_batch_size'"
            )
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.teacher_weights = teacher_weights
        self.statistic_names = loss.statistic_names
        self.owns_layers = loss.owns_layers
        self.keeps_samples = loss.keeps_samples
        self.compares_classes = loss.compares_classes
        self.compares_binary = loss.compares_binary
        self.reads_label = loss.reads_label or teacher_weights == "confidence"
        self.takes_one_class = loss.takes_one_class or teacher_weights == "confidence"
        # A loss that has layers makes them for one teacher's outputs.
        self.losses = [loss, *(_copy_without_layers(loss) if loss.owns_layers else loss for _ in range(count - 1))]
        names = as_list("logits" if loss.teacher_layers is None else loss.teacher_layers)
        # Past the check of equal numbers in the constructor, which `loss` passed: the student stands for each teacher.
        # What the constructor set is fixed.
        of_teachers = [output_key(k, name) for k in range(count) for name in names]
        vars(self).update(teacher_layers=of_teachers, student_layers=loss.student_layers)

    def build(self, teacher_shapes, student_shapes):
        shapes = dict(zip(self.teacher_layers, teacher_shapes, strict=True))
        for k, loss in enumerate(self.losses):
            loss.build(select(_select_teacher(shapes, k), loss.teacher_layers), student_shapes)
        # A loss that is built again keeps its layers, and so does this one.
        if not self.layers:
            for loss in self.losses:
                for layer in loss.layers:
                    self.add_layer(layer)

    def inputs(self, teacher, student, labels, index):
        if self.teacher_weights == "confidence" and labels is None:
            raise ValueError(
                "`teacher_weights='confidence'` reads labels, and the data have none. Train on (x, labels)."
            )
        outputs = [_select_teacher(teacher, k) for k in range(len(self.losses))]
        shares = compute_shares(self.teacher_weights, [each.get("logits") for each in outputs], labels)
        pairs = [loss.inputs(each, student, labels, index) for loss, each in zip(self.losses, outputs, strict=True)]
        y_true, y_pred = map(list, zip(*pairs, strict=True))
        return {"teachers": y_true, "shares": shares}, y_pred

    def values(self, y_true, y_pred, training=False):
        total = 0.0
        for k, (loss, *pair) in enumerate(self._zip(y_true, y_pred)):
            values, share = loss.compute_values(*pair, training), y_true["shares"][k]
            if is_per_sample(self.teacher_weights, len(self.losses)):
                check_per_sample(self.name, values)
                # Along the batch alone: values `(batch, 1)` would broadcast against `(batch,)`.
                share = tf.reshape(share, [-1, *[1] * (len(values.shape) - 1)])
            total += tf.cast(share, values.dtype) * values
        # All losses read the one student, whose mask the list of what they read does not carry.
        return copy_mask(y_pred[0], total)

    def statistics(self, y_true, y_pred):
        # Statistics are means over the batch already: of weights per sample their mean is the teacher's.
        means = tf.reduce_mean(tf.reshape(y_true["shares"], [len(self.losses), -1]), axis=1)
        each = [loss.statistics(*pair) for loss, *pair in self._zip(y_true, y_pred)]
        return {name: sum(means[k] * values[name] for k, values in enumerate(each)) for name in self.statistic_names}

    def valid(self, y_true, y_pred):
        # An average is of the samples that have a value with every teacher: classes may be those that each names.
        each = [loss.valid(*pair) for loss, *pair in self._zip(y_true, y_pred)]
        return {name: tf.reduce_all(tf.stack([valid[name] for valid in each]), axis=0) for name in each[0]}

    def find_known(self, labels, index):
        return self.losses[0].find_known(labels, index)

    def explain_unknown(self, index):
        return self.losses[0].explain_unknown(index)

    def _zip(self, y_true, y_pred):
        """Yields for each teacher its loss and what that loss reads."""
        return zip(self.losses, y_true["teachers"], y_pred, strict=True)

    def get_config(self):
        loss = keras.saving.serialize_keras_object(self.losses[0])
        return {"loss": loss, "teacher_weights": self.teacher_weights, "count": len(self.losses)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def average_over_teachers(losses: list[DistillationLoss], teacher) -> list[DistillationLoss]:
    """Returns losses as they are evaluated on a teacher's outputs: averaged, if it is an ensemble that averages losses.

    Args:
        losses: list of `DistillationLoss`.
        teacher: one model, a `TeacherEnsemble`, or None.

    Raises:
        ValueError: an ensemble that takes softmaxes, with a loss of classes that are each a yes or no.
    """
    _check_averages(losses, teacher)
    if isinstance(teacher, TeacherEnsemble) and teacher.average == "losses":
        return [AveragedLoss(loss, teacher.teacher_weights, len(teacher.teachers)) for loss in losses]
    return list(losses)


def _check_averages(losses, teacher):
    names = [loss.name for loss in losses if loss.compares_binary]
    if not names or not isinstance(teacher, TeacherEnsemble) or len(teacher.teachers) == 1:
        return
    average, weights = teacher.average, teacher.teacher_weights
    # Of `"losses"` the ensemble's own output, which the agreement is measured with, is that of `"probabilities"`.
    if average != "logits" or isinstance(weights, str):
        raise ValueError(
            f"Loss '{names[0]}' takes each class for a yes or no, and an ensemble takes a softmax over the classes "
            "unless it averages logits by given weights. Received: "
            f"average={average!r}, teacher_weights={weights!r}. Give average='logits', and numbers if any"
        )


def _select_teacher(outputs, k):
    """Returns the dict of the teacher at position `k` out of that of all."""
    prefix = output_key(k, "")
    return {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}


def _copy_without_layers(loss):
    """Copies a loss, but for its layers; numbers that are set on `loss` while training hold for the copy too."""
    copy = type(loss).from_config(loss.get_config())
    share_hyperparameters(loss, copy)
    return copy
