"""Reads the teachers of an ensemble, and evaluates the losses on each of them where losses are what is averaged."""

import tensorflow as tf

from keras_tkd import compatibility
from keras_tkd.ensemble import TeacherEnsemble, check_classes
from keras_tkd.losses.base import DistillationLoss, as_list, layers_read, select
from keras_tkd.teacher_reader import TeacherReader, key
from keras_tkd.utils.hyperparameters import LiveNumber


class EnsembleReader:
    """A `TeacherReader` of an ensemble, each of whose teachers runs once.

    It gives the ensemble's `"logits"`, and where losses are averaged also the outputs of each teacher, under
    `"teacher_1/logits"` and so on.
    """

    role = "teacher"

    def __init__(self, ensemble, losses):
        layers = layers_read(losses, "teacher_layers")
        if layers and ensemble.average != "losses":
            raise ValueError(
                f"`average={ensemble.average!r}` makes one output of several teachers, which has no layers. Received: "
                f"losses that read the teacher's layers {sorted(set(layers))}. Take `average='losses'`"
            )
        self.ensemble = ensemble
        self.teachers = list(ensemble.teachers)
        self._apart = ensemble.average == "losses"
        self.losses = [AveragedLoss(loss, ensemble) for loss in losses] if self._apart else list(losses)
        self._readers = [TeacherReader(teacher, losses) for teacher in self.teachers]

    def build(self, shape):
        shapes = [reader.build(shape) for reader in self._readers]
        logits = [outputs["logits"] for outputs in shapes]
        check_classes(logits)
        self.ensemble.built = True
        return {"logits": logits[0]} | self._of_each(shapes)

    def check_given(self, outputs):
        compatibility.check_given_outputs("teacher", outputs, self.losses)

    def __call__(self, images, training=False):
        outputs = [reader(images, training=training)[1] for reader in self._readers]
        logits = self.ensemble.combine([of_teacher["logits"] for of_teacher in outputs])
        return logits, {"logits": logits} | self._of_each(outputs)

    def _of_each(self, outputs):
        """The dicts of all teachers in one, where they are kept apart."""
        if not self._apart:
            return {}
        return {key(k, name): value for k, each in enumerate(outputs) for name, value in each.items()}


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
        owns_layers = type(loss).layers is not DistillationLoss.layers
        self.losses = [loss, *(copy_of(loss) if owns_layers else loss for _ in ensemble.teachers[1:])]
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


def reader_of(teacher, losses):
    """The reader of a `Distiller`'s teacher, one model or a `TeacherEnsemble`, for its losses."""
    return (EnsembleReader if isinstance(teacher, TeacherEnsemble) else TeacherReader)(teacher, losses)


def of_teacher(outputs, k):
    """The dict of the teacher at position `k` out of that of all."""
    prefix = key(k, "")
    return {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}


def copy_of(loss):
    """A loss like `loss` with layers of its own, which follows the numbers that are set on `loss` while training."""
    copy = type(loss).from_config(loss.get_config())
    vars(copy).update({name: value for name, value in vars(loss).items() if isinstance(value, LiveNumber)})
    return copy
