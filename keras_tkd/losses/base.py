"""The contract between a distillation loss and the Distiller.

Who owns what:
- a loss is a pure function of (teacher outputs, student outputs) that gives one value per sample;
- `DistillationLoss` adds to it what Keras's losses have (name, reduction, sample weights, dtype, serialization), the
  layers it reads, and layers of its own (projectors), if any;
- the Distiller runs the models and calls `loss(*loss.inputs(...), sample_weight=..., training=...)`.
"""

import keras

from keras_tkd.losses.validation import arrays, check_layers, check_same_shape, one_hot


class DistillationLoss(keras.losses.Loss):
    """Base class of all distillation losses.

    A subclass implements `call(teacher_outputs, student_outputs)`, one value per sample, shape `(batch,)`.

    Args:
        teacher_layers: what is read from the teacher: None (its final output), the name of one layer, or a list of
            names.
        student_layers: the same for the student; as many as `teacher_layers`.
        name: name of the loss, the tag of its curve in TensorBoard; None is the class's `default_name`.
        reduction: as in `keras.losses.Loss`.
        dtype: dtype of the loss's computation; None is `keras.backend.floatx()`, normally float32. Inputs are cast to
            it, so models of mixed precision still have their losses computed in float32.
    """

    default_name = None
    statistic_names = ()
    # Whether the call in progress belongs to a training step: what layers with a mode of their own go by.
    training = False

    def __init__(
        self,
        teacher_layers=None,
        student_layers=None,
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name or self.default_name, reduction=reduction, dtype=dtype)
        self.teacher_layers = check_layers("teacher_layers", teacher_layers)
        self.student_layers = check_layers("student_layers", student_layers)
        if layer_count(self.teacher_layers) != layer_count(self.student_layers):
            raise ValueError(
                "`teacher_layers` and `student_layers` must be of equal length (None is the final output, one). "
                f"Received: teacher_layers={teacher_layers!r}, student_layers={student_layers!r}"
            )

    def __call__(self, y_true, y_pred, sample_weight=None, training=False):
        self.training = training
        try:
            return super().__call__(arrays(y_true), arrays(y_pred), sample_weight)
        finally:
            self.training = False

    @property
    def layers(self):
        """Keras layers that the loss owns (projectors). They train with the student and are not part of it."""
        return []

    def build(self, teacher_shapes, student_shapes):
        """Makes the loss's own layers and checks that the outputs can be compared.

        Args:
            teacher_shapes: what the loss reads from the teacher, as shapes with None for the batch: one tuple, or a
                list of tuples where a list of layers is read.
            student_shapes: the same for the student.
        """

    def inputs(self, teacher, student, labels, index):
        """What the Distiller hands to `__call__`.

        Args:
            teacher: dict of the teacher's outputs: `"logits"` is the final one, the others are named as asked for.
            student: the same for the student; also `"step"`, the number of the training step, a source of stateless
                randomness; `"positive"`, `"negative"` and `"partner"`, dicts like itself, where the batch has such
                images; and `"same"`, where the batch says which partners are of the image's class.
            labels: `(batch,)` class ids, or None where the data have no labels.
            index: `(batch,)` ids of the samples, or None where the data have none.

        Returns:
            `(y_true, y_pred)`, tensors or nests of tensors.
        """
        return select(teacher, self.teacher_layers), select(student, self.student_layers)

    def statistics(self, y_true, y_pred):
        """Scalars worth a curve beside the loss: a scalar tensor for each of `statistic_names`."""
        return {}

    def get_config(self):
        layers = {"teacher_layers": self.teacher_layers, "student_layers": self.student_layers}
        return {**super().get_config(), **layers, "dtype": self.dtype}


class LogitsLoss(DistillationLoss):
    """Base class of losses that compare one output with one output, class by class."""

    def build(self, teacher_shapes, student_shapes):
        if isinstance(teacher_shapes, list) or tuple(teacher_shapes)[1:] != tuple(student_shapes)[1:]:
            raise ValueError(
                f"Loss '{self.name}' compares one output of the teacher with one of the student, of equal shape. "
                f"Received: teacher {teacher_shapes}, student {student_shapes}. "
                "Name layers of equal shape, or give both models the same classes."
            )


class LabelledLogitsLoss(LogitsLoss):
    """Base class of logits losses that treat the class of the label apart.

    Call: `loss({"logits": teacher_logits, "labels": labels}, student_logits)`, logits `(batch, classes)`, labels
    `(batch,)` class ids. `call` receives the labels as `"target"`, one-hot.
    """

    def inputs(self, teacher, student, labels, index):
        teacher, student = super().inputs(teacher, student, labels, index)
        if labels is None:
            raise ValueError(f"Loss '{self.name}' reads labels, and the data have none. Train on (x, labels).")
        return {"logits": teacher, "labels": labels}, student

    def __call__(self, y_true, y_pred, sample_weight=None, training=False):
        if not isinstance(y_true, dict) or set(y_true) != {"logits", "labels"}:
            raise ValueError(
                f"Loss '{self.name}' reads labels: "
                '`loss({"logits": teacher_logits, "labels": labels}, student_logits)`. '
                f"Received: y_true={y_true}"
            )
        y_true, y_pred = arrays(y_true), arrays(y_pred)
        check_same_shape(self.name, y_true["logits"], y_pred)
        # Before everything is cast to the loss's dtype, which could not tell large class ids apart.
        target = one_hot(self.name, y_true["labels"], y_pred.shape[-1])
        check_same_shape(self.name, target, y_pred)
        return super().__call__({"logits": y_true["logits"], "target": target}, y_pred, sample_weight, training)


class LayerPairsLoss(DistillationLoss):
    """Base class of losses that compare one layer of the teacher with one of the student, summed over all pairs given.

    A subclass implements `compare(teacher, student)` of two tensors, one value per sample.
    """

    def call(self, y_true, y_pred):
        pairs = zip(as_list(y_true), as_list(y_pred), strict=True)
        return sum(self.compare(teacher, student) for teacher, student in pairs)


def select(outputs, layers):
    if isinstance(layers, list):
        return [outputs[name] for name in layers]
    return outputs["logits" if layers is None else layers]


def layers_read(losses, side):
    """Names of all layers that the losses read from the `"teacher_layers"` or the `"student_layers"`."""
    return keras.tree.flatten([getattr(loss, side) or [] for loss in losses])


def as_list(outputs):
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def shape_list(shapes):
    """Shapes of one output or of a list of outputs, as a list."""
    return list(shapes) if isinstance(shapes, list) else [tuple(shapes)]


def layer_count(layers):
    return len(layers) if isinstance(layers, list) else 1
