"""The contract between a distillation loss and the Distiller.

Who owns what:
- a loss is a pure function of (teacher outputs, student outputs) that gives one value per sample;
- `DistillationLoss` adds what Keras's losses have (name, reduction, sample weights, dtype, serialization), the names of
  the layers it reads, and layers of its own (projectors), if any;
- the Distiller runs the models and calls `loss(*loss.inputs(...), sample_weight=..., training=...)`.
"""

import inspect

import keras
import tensorflow as tf

from keras_tkd.losses.outputs import as_list, as_shape_list, select
from keras_tkd.losses.reduction import reduce_values
from keras_tkd.losses.validation import (
    as_arrays,
    check_classes,
    check_layers,
    check_per_sample,
    check_same_shape,
    one_hot,
)
from keras_tkd.utils.fixed_attributes import FixedAttributes

__all__ = [
    "DistillationLoss",
    "LabelledLogitsLoss",
    "LayerPairsLoss",
    "LogitsLoss",
]


class DistillationLoss(FixedAttributes, keras.losses.Loss):
    """Base class of all distillation losses.

    A new loss implements one method, `call(teacher_outputs, student_outputs)`, which returns one value per sample,
    shape `(batch,)`. What it is given is cast to the loss's dtype. A `call` that has a parameter `training` is told
    whether the step trains.

    What else may be overridden:

    - `inputs`: which outputs, labels or ids the loss reads; without it, the outputs of its layers.
    - `build`: checks of shapes, and layers of the loss's own, by `add_layer`; the class then says `owns_layers = True`.
    - `values`: instead of `call`, for a loss that must see labels or ids before they are cast.
    - `statistics`: numbers worth a curve beside the loss, and their names in `statistic_names`.
    - `valid`: which samples count, for a loss that cannot compare every sample.

    A subclass takes its own arguments first, by position or name, and hands these on as `**common`.

    Args:
        teacher_layers: what is read from the teacher: None (its final output), the name of one layer, or a list of
            names.
        student_layers: the same for the student; as many as `teacher_layers`.
        name: name of the loss, the tag of its curve in TensorBoard; None is the class's `default_name`.
        reduction: as in `keras.losses.Loss`.
        dtype: dtype of the loss's computation; None is `keras.backend.floatx()`, normally float32. Inputs are cast to
            it, so models of mixed precision still have their losses computed in float32.

    Call: `loss(teacher_outputs, student_outputs, sample_weight=None, training=False)`, tensors or nests of tensors.

    Raises:
        ValueError: names of layers that are no names, or not as many on both sides; when called, sample weights for a
            `call` that returns one number for the whole batch.
    """

    default_name = None
    statistic_names = ()
    # Whether `build` adds layers. Said by the class, because an ensemble has to know it before anything is built: it
    # gives each of its teachers a copy of such a loss.
    owns_layers = False
    # Whether its layers keep something of each sample, which a step writes: all replicas that share a batch must write
    # the same, that of the whole batch. Such a loss says by `find_known` which samples these are.
    keeps_samples = False
    # Whether it takes outputs for logits of classes of which an image has one, or for those of classes that are each a
    # yes or no; whether it reads the class of the label; and whether it takes the label for the one class of the image,
    # so that labels of mixed images are refused.
    compares_classes = False
    compares_binary = False
    reads_label = False
    takes_one_class = False
    # A traced step would not follow: what may change while training is a `Hyperparameter`.
    _FIXED = ("teacher_layers", "student_layers")

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
        if len(as_list(self.teacher_layers)) != len(as_list(self.student_layers)):
            raise ValueError(
                "`teacher_layers` and `student_layers` must be of equal length (None is the final output, one). "
                f"Received: teacher_layers={teacher_layers!r}, student_layers={student_layers!r}"
            )
        self._layers = []
        self._widths = None  # those that the layers were made for
        # As `keras.layers.Layer` does: looked up once, not in every call.
        self._call_takes_training = _takes_training(self.call)
        self._values_take_training = _takes_training(self.values)

    def __call__(self, y_true, y_pred, sample_weight=None, training=False):
        y_true, y_pred = as_arrays(y_true), as_arrays(y_pred)
        values = self.compute_values(y_true, y_pred, training)
        if sample_weight is not None:
            check_per_sample(self.name, values, sample_weight)
        return reduce_values(self, values, y_pred, sample_weight, self.valid(y_true, y_pred).get("loss"))

    def compute_values(self, y_true, y_pred, training=False):
        """Computes the values that the loss reduces, of tensors, arrays or nested lists of numbers.

        Args:
            y_true, y_pred, training: as for `values`.
        """
        y_true, y_pred = as_arrays(y_true), as_arrays(y_pred)
        with keras.name_scope(self.name):
            if self._values_take_training:
                return self.values(y_true, y_pred, training=training)
            return self.values(y_true, y_pred)

    def values(self, y_true, y_pred, training=False):
        """Returns one value per sample, before any weight or mean: `call` of the inputs, cast to the loss's dtype.

        A loss that reads labels or mines overrides this: it sees its inputs as they came. A cast to float32 could not
        tell large class ids apart. The parameter `training` may be left out, as in `call`.

        Args:
            y_true, y_pred: what `inputs` returns.
            training: whether the values are those of a training step.
        """
        y_true, y_pred = keras.tree.map_structure(self.cast, (y_true, y_pred))
        if self._call_takes_training:
            return self.call(y_true, y_pred, training=training)
        return self.call(y_true, y_pred)

    def cast(self, output):
        """Returns `output`, a tensor or an array, as a tensor of the loss's dtype."""
        return keras.ops.convert_to_tensor(output, dtype=self.dtype)

    @property
    def layers(self):
        """Keras layers that the loss owns (projectors), in the order of `add_layer`.

        They train with the student and are not part of it.
        """
        return list(self._layers)

    def add_layer(self, layer):
        """Adds a layer of the loss's own, which is built already, and returns it. Called by `build`."""
        if not self.owns_layers:
            raise ValueError(
                f"A loss that adds layers must say so in its class: `owns_layers = True`. Received: layer "
                f"'{layer.name}' in loss '{self.name}', {type(self).__name__}.owns_layers=False"
            )
        self._layers.append(layer)
        return layer

    def has_layers_for(self, teacher_shapes, student_shapes) -> bool:
        """Returns whether `build` has made the loss's layers already, as two Distillers may share a loss.

        Raises:
            ValueError: layers that were made for outputs of other widths.
        """
        widths = [[shape[-1] for shape in as_shape_list(shapes)] for shapes in (teacher_shapes, student_shapes)]
        if self._layers and self._widths not in (None, widths):
            raise ValueError(
                f"Loss '{self.name}' has layers of its own, made for outputs of the widths {self._widths} of teacher "
                f"and student. Received: {widths}. Make a loss for each Distiller whose models differ in them"
            )
        self._widths = widths
        return bool(self._layers)

    def build(self, teacher_shapes: tuple | list[tuple], student_shapes: tuple | list[tuple]):
        """Makes the loss's own layers and checks that the outputs can be compared.

        Args:
            teacher_shapes: what the loss reads from the teacher, as shapes with None for the batch: one tuple, or a
                list of tuples where a list of layers is read.
            student_shapes: the same for the student.
        """

    def inputs(self, teacher: dict[str, tf.Tensor], student: dict, labels, index):
        """Picks what the loss reads: the two arguments of its call.

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

    def statistics(self, y_true, y_pred) -> dict[str, tf.Tensor]:
        """Returns scalars worth a curve beside the loss: a scalar tensor for each of `statistic_names`."""
        return {}

    def valid(self, y_true, y_pred) -> dict[str, tf.Tensor]:
        """Returns which samples have a value: bool `(batch,)` for the loss, under `"loss"`, and for its statistics.

        The loss is the mean of the samples that count, a statistic is that already, and both count in the mean over an
        epoch by the number of these samples. What has no entry counts them all.

        Args:
            y_true, y_pred: what `inputs` returns.
        """
        return {}

    def find_known(self, labels, index):
        """Returns which samples of a training batch, bool `(batch,)`, a loss that `keeps_samples` has a place for.

        Args:
            labels, index: as for `inputs`.
        """
        return tf.ones_like(tf.reshape(index, [-1]), tf.bool)

    def explain_unknown(self, index: int) -> str:
        """Returns the text of an error for the sample of this id, which `find_known` does not find."""
        return f"Loss '{self.name}' has no place for the sample of \"index\" {index}"

    def get_config(self):
        layers = {"teacher_layers": self.teacher_layers, "student_layers": self.student_layers}
        return {**super().get_config(), **layers, "dtype": self.dtype}


class LogitsLoss(DistillationLoss):
    """Base class of losses that compare one output with one output, class by class."""

    compares_classes = True

    def build(self, teacher_shapes, student_shapes):
        # Shapes that differ may still be broadcast to one another, and a wrong loss would train without an error.
        if isinstance(teacher_shapes, list) or tuple(teacher_shapes)[1:] != tuple(student_shapes)[1:]:
            raise ValueError(
                f"Loss '{self.name}' compares one output of the teacher with one of the student, of equal shape. "
                f"Received: teacher {teacher_shapes}, student {student_shapes}. "
                "Name layers of equal shape, or give both models the same classes."
            )
        if self.compares_classes:
            check_classes(self.name, student_shapes)


class LabelledLogitsLoss(LogitsLoss):
    """Base class of logits losses that treat the class of the label apart.

    `call` is given `{"logits": teacher_logits, "target": one-hot labels}` and the student's logits.

    Call: `loss({"logits": teacher_logits, "labels": labels}, student_logits)`, logits `(batch, classes)`, labels
    `(batch,)` class ids.
    """

    reads_label = True
    takes_one_class = True

    def inputs(self, teacher, student, labels, index):
        teacher, student = super().inputs(teacher, student, labels, index)
        if labels is None:
            raise ValueError(f"Loss '{self.name}' reads labels, and the data have none. Train on (x, labels).")
        return {"logits": teacher, "labels": labels}, student

    def values(self, y_true, y_pred, training=False):
        if not isinstance(y_true, dict) or set(y_true) != {"logits", "labels"}:
            raise ValueError(
                f"Loss '{self.name}' reads labels: "
                '`loss({"logits": teacher_logits, "labels": labels}, student_logits)`. '
                f"Received: y_true={y_true}"
            )
        check_same_shape(self.name, y_true["logits"], y_pred)
        check_classes(self.name, y_pred.shape)
        # Here, where labels are whole numbers still; and compared in shape, as one label would broadcast to all rows.
        target = one_hot(self.name, y_true["labels"], y_pred.shape[-1])
        check_same_shape(self.name, target, y_pred)
        return super().values({"logits": y_true["logits"], "target": target}, y_pred, training)


class LayerPairsLoss(DistillationLoss):
    """Base class of losses that compare one layer of the teacher with one of the student, summed over all pairs given.

    A subclass implements `compare(teacher, student)` of two tensors, one value per sample.
    """

    def call(self, y_true, y_pred):
        pairs = zip(as_list(y_true), as_list(y_pred), strict=True)
        return sum(self.compare(teacher, student) for teacher, student in pairs)

    def compare(self, teacher, student):
        """Compares a layer's output of the teacher with one of the student; one value per sample, `(batch,)`."""
        raise NotImplementedError


def _takes_training(method):
    return "training" in inspect.signature(method).parameters
