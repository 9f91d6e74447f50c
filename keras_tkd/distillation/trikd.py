"""TriKD: a student and a teacher that learn together, the teacher held near a frozen anchor.

The equations are our reading of the paper, whose own could not be read; see `TriKD`.
"""

import keras
import tensorflow as tf

from keras_tkd import teachers
from keras_tkd.batches import ANCHOR, IMAGE, TEACHER, get_class_ids, select_images
from keras_tkd.distillation import model_validation, validation
from keras_tkd.distillation.base import DistillationModel
from keras_tkd.distillation.forward_pass import ForwardPass, build_outputs, compute_agreement, select_predictions
from keras_tkd.distillation.objective import Objective, sum_regularization
from keras_tkd.distillation.valid_samples import put_first
from keras_tkd.losses.logits import SoftTargets
from keras_tkd.teachers.reader import TeacherReader
from keras_tkd.utils import keras_graph
from keras_tkd.utils.hyperparameters import Hyperparameter, read_hyperparameter
from keras_tkd.utils.layer_outputs import compute_output_shapes

__all__ = ["TriKD"]

_TEACHER_TOTAL = "teacher_total"
_TEACHER_LOSS = "teacher_loss"
_TEACHER_ANCHOR = "teacher_anchor"
_TEACHER_PEER = "teacher_peer"
_TEACHER_REGULARIZATION = "teacher_regularization"
_TEACHER_ACCURACY = "teacher_accuracy"
_STUDENT_ANCHOR = "student_anchor"
_OWN_NAMES = (
    _STUDENT_ANCHOR,
    _TEACHER_ANCHOR,
    _TEACHER_TOTAL,
    _TEACHER_LOSS,
    _TEACHER_PEER,
    _TEACHER_ACCURACY,
    _TEACHER_REGULARIZATION,
)


class _FinaliseTeacher(keras.callbacks.Callback):
    """Gives the teacher the last values of its weights, as Keras gives the student's: averages, with `use_ema`.

    It stands first, as Keras does that before `on_train_end`, in which a callback may restore the best weights.
    """

    def on_train_end(self, logs=None):
        optimizer = self.model.teacher_optimizer
        # Averages over no step are zeros.
        if self.model.online and int(optimizer.iterations.numpy()):
            optimizer.finalize_variable_values(self.model.teacher.trainable_variables)


@keras.saving.register_keras_serializable(package="keras_tkd")
class TriKD(DistillationModel):
    """Trains a student and its teacher together, in every step on the same batch.

    A frozen anchor, as small as the student, marks which solutions are easy to imitate; the online teacher learns the
    labels while it stays near the anchor and near the student, and the student learns the labels and the teacher:

        teacher: teacher_loss_weight * loss(labels, z_t) + anchor_weight * T^2 KL(p_a || p_t)
                 + peer_weight * T^2 KL(stop(p_s) || p_t) + its regularization
        student: student_loss_weight * loss(labels, z_s) + distillation_loss_weight * T^2 KL(stop(p_t) || p_s)
                 + its regularization

    with `p = softmax(z / T)` of anchor a, teacher t and student s, and `loss` the one given to `compile`. The metric
    `loss` is the student's total.

    Special cases: without an anchor and with T = 1 this is deep mutual learning (Zhang et al., 2018); with a teacher
    that has no trainable weights (`teacher.trainable = False` before) only the student learns, from soft targets
    (Hinton et al., 2015).

    Args:
        teacher: `keras.Model` that returns logits; it is trained, unless it has no trainable weights.
        student: `keras.Model` that returns logits.
        anchor: trained `keras.Model` that returns logits, usually of the student's architecture; it is frozen. None
            leaves its term out. Images of another height or width than it takes are resized for it.
        temperature: T > 0 of all three divergences. May be set while training, as all weights may.
        teacher_loss_weight, anchor_weight, peer_weight: >= 0, weights of the teacher's terms.
        student_loss_weight: >= 0, weight of the student's loss on the labels.
        distillation_loss_weights: a number >= 0, or a sequence of one, weight of the student's distillation loss; None
            is 1.
        student_term_reaches_teacher: whether the student's distillation term moves the teacher too, towards what the
            student can follow: the `stop` around `p_t` is then left out.
        name: name of the model.
        gather: `"global"` or `"local"`, as for `Distiller`.

    Data: as for `Distiller`; with an entry `"anchor"`, a dict of the anchor's outputs (`"logits"`), the anchor is not
    run. Where labels are a dict, the teacher returns an output for each of them, as the student does.

    `compute_loss` may be overridden, as in any Keras model: it gives `student_loss`, and the student's alone.

    Metrics: `student_loss`, `kd` (the student's terms), `teacher_loss`, `teacher_anchor`, `teacher_peer` (the teacher's
    terms, before their weights), `teacher_total` (what the teacher minimises), `student_anchor` (the student's
    divergence from the anchor, which no loss holds), `teacher_accuracy`, `agreement` and the regularization of both
    models. Of a teacher without trainable weights there is `teacher_anchor` alone.

    Raises:
        ValueError: models that cannot go together or share weights; weights or a temperature out of range; in training:
            an anchor that was made trainable again.

    Example:

    ```python
    trikd = TriKD(teacher, student, anchor)
    trikd.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"],
                  teacher_optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    trikd.fit(images, labels, epochs=20)
    ```

    Reference: Wang et al., "Triplet Knowledge Distillation", 2023 (arXiv 2305.15975). From the paper's text are the
    three roles, the frozen anchor, and that teacher and student are trained together. The equations above, their
    weights and the temperature are our reading.
    """

    teacher_loss_weight = Hyperparameter()
    anchor_weight = Hyperparameter()
    peer_weight = Hyperparameter()

    _OBJECTS = ("teacher", "student", "anchor")
    _VALUES = (
        "temperature",
        "teacher_loss_weight",
        "anchor_weight",
        "peer_weight",
        "student_loss_weight",
        "distillation_loss_weights",
        "student_term_reaches_teacher",
        "gather",
        "name",
    )

    _LABEL_LOSSES = (*DistillationModel._LABEL_LOSSES, _TEACHER_LOSS)
    _REGULARIZATIONS = (*DistillationModel._REGULARIZATIONS, _TEACHER_REGULARIZATION)

    def __init__(
        self,
        teacher,
        student,
        anchor=None,
        temperature=1.0,
        teacher_loss_weight=1.0,
        anchor_weight=1.0,
        peer_weight=1.0,
        student_loss_weight=1.0,
        distillation_loss_weights=None,
        student_term_reaches_teacher=False,
        name="trikd",
        *,
        gather="global",
    ):
        if teacher is None:
            raise ValueError("`teacher` must be a keras.Model: it learns with the student. Received: teacher=None")
        model_validation.check_models(anchor=anchor, teacher=teacher, student=student)
        losses = [SoftTargets(temperature)]
        super().__init__(teacher, student, losses, losses, distillation_loss_weights, student_loss_weight, gather, name)
        self._scale_losses_for(teacher)
        self.anchor = anchor
        self.teacher_loss_weight = teacher_loss_weight
        self.anchor_weight = anchor_weight
        self.peer_weight = peer_weight
        self._student_term_reaches_teacher = bool(student_term_reaches_teacher)
        self.teacher_optimizer = None
        self._read_anchor = None
        if anchor is not None:
            teachers.freeze(anchor)
            self._read_anchor = TeacherReader(anchor, ["logits"], ANCHOR)
        self._build_from_graph()

    @property
    def temperature(self):
        """T of all three divergences; may be set while training."""
        return self.distillation_losses[0].temperature

    @temperature.setter
    def temperature(self, temperature):
        self.distillation_losses[0].temperature = temperature

    @property
    def student_term_reaches_teacher(self) -> bool:
        """True if the student's distillation term moves the teacher too."""
        return self._student_term_reaches_teacher

    @property
    def online(self) -> bool:
        """True if the teacher learns: if it has, or will have, trainable weights."""
        return bool(self.teacher.trainable_variables if self.teacher.built else self.teacher.trainable)

    def _frozen_readers(self):
        readers = [] if self.online else [self._read_teacher]
        return readers if self.anchor is None else [*readers, self._read_anchor]

    def _trained_models(self):
        return [self.student, self.teacher] if self.online else [self.student]

    # Building and compiling.

    def _build_parts(self, shapes: dict):
        super()._build_parts(shapes)
        if self.anchor is not None:
            with tf.init_scope():
                anchor = build_outputs(self._read_anchor, shapes)
                student = compute_output_shapes(self.student, [], shapes[IMAGE])
                model_validation.check_anchor(self.anchor, anchor["logits"], student["logits"])
            model_validation.check_apart(anchor=self.anchor, teacher=self.teacher, student=self.student)
        self._build_teacher_optimizer()

    def _metric_names(self):
        return [*super()._metric_names(), *_OWN_NAMES]

    def _other_models(self):
        return super()._other_models() | {ANCHOR: self.anchor}

    def compile(self, optimizer="rmsprop", *args, teacher_optimizer=None, **kwargs):
        """Compiles as `keras.Model.compile` does, with an optimizer for each of the two models.

        Args:
            optimizer: the student's. Keras's callbacks, such as `LearningRateScheduler`, `ReduceLROnPlateau` and
                `SwapEMAWeights`, know this one alone: a rate that is to fall for both models is a
                `keras.optimizers.schedules.LearningRateSchedule` in each optimizer.
            teacher_optimizer: the teacher's; None is a second one like the student's.
            args, kwargs: as for `keras.Model.compile`. Its `metrics` are the student's.

        Raises:
            ValueError: one optimizer object for both models; a `MultiOptimizer` without a `teacher_optimizer`; a loss
                that takes probabilities.
        """
        super().compile(optimizer, *args, **kwargs)
        if teacher_optimizer is None:
            if hasattr(getattr(self.optimizer, "inner_optimizer", self.optimizer), "optimizers"):
                raise ValueError(
                    "An optimizer that has others for parts of the student has none for the teacher's: give a "
                    f"`teacher_optimizer`. Received: {type(optimizer).__name__}, and teacher_optimizer=None"
                )
            teacher_optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(self.optimizer))
        teacher_optimizer = keras.optimizers.get(teacher_optimizer)
        if teacher_optimizer is optimizer or teacher_optimizer is self.optimizer:
            raise ValueError(
                "`optimizer` and `teacher_optimizer` must be two objects: each keeps the state of one model's weights. "
                f"Received: {type(optimizer).__name__} for both"
            )
        # Keras wraps the one optimizer that it knows; both losses are of models whose gradients may underflow.
        scales = keras.optimizers.LossScaleOptimizer
        if isinstance(self.optimizer, scales) and not isinstance(teacher_optimizer, scales):
            teacher_optimizer = scales(teacher_optimizer, name="teacher_loss_scale")
        self._check_strategy(teacher_optimizer)
        self.teacher_optimizer = teacher_optimizer
        self._teacher_label_loss = keras_graph.copy_compiled_loss(self)
        self._build_teacher_optimizer()

    @property
    def trainable_variables(self):
        """Variables that `optimizer` trains; the teacher's weights have an optimizer of their own."""
        teacher = {id(variable) for variable in self.teacher.trainable_variables}
        return [variable for variable in super().trainable_variables if id(variable) not in teacher]

    @property
    def trainable_weights(self):
        """Weights that `optimizer` trains: Keras's `fit` has it finalise these, as by their averages (`use_ema`)."""
        return self.trainable_variables

    @property
    def non_trainable_weights(self):
        """All other weights, the teacher's among them: `summary` adds the two lists up."""
        trainable = {id(weight) for weight in self.trainable_weights}
        return [weight for weight in self.weights if id(weight) not in trainable]

    @property
    def state_variables(self):
        """As in the base; the teacher's optimizer is in no layer."""
        own = [] if self.teacher_optimizer is None else self.teacher_optimizer.variables
        return [*super().state_variables, *own]

    def _build_teacher_optimizer(self):
        optimizer = self.teacher_optimizer
        if optimizer is not None and not optimizer.built and self.teacher.trainable_variables:
            # `fit` comes here while it traces the first step, where no variables may be made.
            with tf.init_scope():
                optimizer.build(self.teacher.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, *args, **kwargs):
        """Trains as `DistillationModel.fit` does, and with `use_ema` leaves the teacher its own averages at the end."""
        callbacks = put_first(callbacks, _FinaliseTeacher(), self)
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        return config and config | {"teacher_optimizer": keras.saving.serialize_keras_object(self.teacher_optimizer)}

    # One step.

    def _run_teacher(self, batch: dict, training: bool):
        if not self.online:
            return super()._run_teacher(batch, training)
        y_pred, outputs = self._read_teacher(select_images(TEACHER, batch), training=training)
        # All that it returns: labels may be of its other outputs too.
        return outputs | y_pred if isinstance(y_pred, dict) else outputs

    def _compute_objectives(self, forward_pass: ForwardPass) -> list[Objective]:
        objectives = super()._compute_objectives(forward_pass)
        if self.online:
            # The weight of the student's distillation term, which may be a term of the teacher's too.
            weight, _ = objectives[0].terms[self.term_names[0]]
            terms = self._compute_teacher_terms(forward_pass, weight)
            variables = self.teacher.trainable_variables
            objectives.append(Objective(_TEACHER_TOTAL, self.teacher_optimizer, variables, terms))
        return objectives

    def _compute_teacher_terms(self, forward_pass: ForwardPass, distillation_loss_weight):
        """Computes the teacher's terms, `(weight, value)` by name; the student stands still here."""
        teacher, student = forward_pass.teacher["logits"], tf.stop_gradient(forward_pass.student["logits"])
        terms = {}
        value = self._compute_teacher_label_loss(forward_pass)
        if value is not None:
            terms[_TEACHER_LOSS] = read_hyperparameter(self, "teacher_loss_weight"), value
        if self.anchor is not None:
            value = self._compute_divergence(forward_pass.batch[ANCHOR]["logits"], teacher, forward_pass)
            terms[_TEACHER_ANCHOR] = read_hyperparameter(self, "anchor_weight"), value
        value = self._compute_divergence(student, teacher, forward_pass)
        terms[_TEACHER_PEER] = read_hyperparameter(self, "peer_weight"), value
        if self.teacher.losses:
            terms[_TEACHER_REGULARIZATION] = 1.0, sum_regularization(self.teacher.losses)
        if self.student_term_reaches_teacher:
            # The student's own term, under its name: it is the same number, here as a function of the teacher.
            value = self._compute_divergence(teacher, student, forward_pass)
            terms[self.term_names[0]] = distillation_loss_weight, value
        return terms

    def _compute_teacher_label_loss(self, forward_pass: ForwardPass):
        """Computes the loss given to `compile` of the teacher's outputs; None without one, or without labels."""
        y, outputs = forward_pass.y, forward_pass.teacher
        if y is None:
            return None
        validation.check_label_outputs(TEACHER, y, outputs)
        with keras_graph.losses_of_one_device():
            value = self._teacher_label_loss(y, select_predictions(y, outputs), forward_pass.sample_weight)
        return None if value is None else validation.check_scalar(value)

    def _compute_divergence(self, target, logits, forward_pass: ForwardPass):
        with keras_graph.losses_of_one_device():
            value = self.distillation_losses[0](target, logits, sample_weight=forward_pass.image_weight)
        return tf.cast(value, tf.float32)  # as the terms of the losses

    def _compute_statistics(self, forward_pass: ForwardPass):
        values = super()._compute_statistics(forward_pass)
        teacher, student = forward_pass.teacher["logits"], forward_pass.student["logits"]
        if self.anchor is not None:
            anchor = forward_pass.batch[ANCHOR]["logits"]
            values[_STUDENT_ANCHOR] = self._compute_divergence(anchor, student, forward_pass)
            if not self.online:  # an online teacher's is one of its terms
                values[_TEACHER_ANCHOR] = self._compute_divergence(anchor, teacher, forward_pass)
        labels = get_class_ids(forward_pass.y)
        if self.online and labels is not None:
            values[_TEACHER_ACCURACY] = compute_agreement(labels, tf.argmax(teacher, -1))
        return values
