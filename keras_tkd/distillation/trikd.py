"""TriKD: a student and a teacher that learn together, the teacher held near a frozen anchor.

The equations are our reading of the paper, whose own could not be read; see `TriKD`.
"""

import keras
import tensorflow as tf

from keras_tkd import teachers
from keras_tkd.batches import as_batch, class_ids, images_of
from keras_tkd.distillation import validation
from keras_tkd.distillation.distiller import Distiller, is_regularized
from keras_tkd.distillation.forward_pass import share_of_equal, sum_of
from keras_tkd.losses.logits import SoftTargets
from keras_tkd.teachers.reader import TeacherReader
from keras_tkd.utils.hyperparameters import Hyperparameter, check_number, read_hyperparameter
from keras_tkd.utils.layer_outputs import output_shapes

TEACHER_TOTAL = "teacher_total"
TEACHER_LOSS = "teacher_loss"
TEACHER_ANCHOR = "teacher_anchor"
TEACHER_PEER = "teacher_peer"
TEACHER_REGULARIZATION = "teacher_regularization"
TEACHER_ACCURACY = "teacher_accuracy"
STUDENT_ANCHOR = "student_anchor"


@keras.saving.register_keras_serializable(package="keras_tkd")
class TriKD(Distiller):
    """Trains a student and its teacher together, in every step on the same batch.

    A frozen anchor, as small as the student, marks which solutions are easy to imitate; the online teacher learns the
    labels while it stays near the anchor and near the student, and the student learns the labels and the teacher:

        teacher: teacher_loss_weight * loss(labels, z_t) + anchor_weight * T^2 KL(p_a || p_t)
                 + peer_weight * T^2 KL(stop(p_s) || p_t) + its regularization
        student: student_loss_weight * loss(labels, z_s) + distillation_weight * T^2 KL(stop(p_t) || p_s)
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
        student_loss_weight, distillation_weight: >= 0, weights of the student's terms.
        student_term_reaches_teacher: whether the student's distillation term moves the teacher too, towards what the
            student can follow: the `stop` around `p_t` is then left out.
        name: name of the model.

    Data: as for `Distiller`; with an entry `"anchor"`, a dict of the anchor's outputs (`"logits"`), the anchor is not
    run.

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
        distillation_weight=1.0,
        student_term_reaches_teacher=False,
        name="trikd",
    ):
        if teacher is None:
            raise ValueError("`teacher` must be a keras.Model: it learns with the student. Received: teacher=None")
        validation.check_models(anchor=anchor, teacher=teacher, student=student)
        check_number("distillation_weight", distillation_weight)
        # Before the rest: models that are built already build this one in the base class.
        self.anchor = anchor
        self.teacher_loss_weight = teacher_loss_weight
        self.anchor_weight = anchor_weight
        self.peer_weight = peer_weight
        self.student_term_reaches_teacher = bool(student_term_reaches_teacher)
        self.teacher_optimizer = None
        soft_targets = SoftTargets(temperature)
        self._read_anchor = None if anchor is None else TeacherReader(anchor, [soft_targets], "anchor")
        super().__init__(teacher, student, soft_targets, [distillation_weight], student_loss_weight, name)
        if any(layer.compute_dtype == "float16" for layer in teacher._flatten_layers()):
            self.dtype_policy = "mixed_float16"

    @property
    def temperature(self):
        return self.distillation_losses[0].temperature

    @temperature.setter
    def temperature(self, temperature):
        self.distillation_losses[0].temperature = temperature

    @property
    def distillation_weight(self):
        return self.distillation_loss_weights[0]

    @distillation_weight.setter
    def distillation_weight(self, weight):
        self.distillation_loss_weights = [weight]

    @property
    def online(self):
        """Whether the teacher learns: whether it has, or will have, trainable weights."""
        return bool(self.teacher.trainable_variables if self.teacher.built else self.teacher.trainable)

    # Building and compiling.

    def freeze_teacher(self):
        """Freezes the anchor; the teacher trains."""
        if self.anchor is not None:
            teachers.freeze(self.anchor)

    def build(self, input_shape):
        if self.built:
            return
        shapes = as_batch(input_shape)
        super().build(input_shape)
        if self.anchor is not None:
            with tf.init_scope():
                self._check_anchor(shapes)
        self._build_teacher_optimizer()

    def _check_anchor(self, shapes):
        anchor = self._output_shapes(self._read_anchor, shapes)["logits"]
        student = output_shapes(self.student, [], shapes["image"])["logits"]
        teachers.check_logits("anchor", self.anchor)
        validation.check_apart(anchor=self.anchor, teacher=self.teacher, student=self.student)
        if anchor[1:] != student[1:]:
            raise ValueError(
                f"The anchor must name the student's classes. Received: anchor output {anchor}, student output "
                f"{student}. Take an anchor that was trained on the same classes"
            )

    def _names_tracked(self, comparable):
        names = super()._names_tracked(comparable)
        if self.anchor is not None:
            names += [STUDENT_ANCHOR, TEACHER_ANCHOR]
        if self.online:
            names += [TEACHER_TOTAL, TEACHER_LOSS, TEACHER_PEER, TEACHER_ACCURACY]
            if is_regularized(self.teacher):
                names.append(TEACHER_REGULARIZATION)
        return names

    def compile(self, optimizer="rmsprop", *args, teacher_optimizer=None, **kwargs):
        """`keras.Model.compile`, with an optimizer for each of the two models.

        Args:
            optimizer: the student's.
            teacher_optimizer: the teacher's; None is a second one like the student's.
            args, kwargs: as for `keras.Model.compile`. Its `metrics` are the student's.

        Raises:
            ValueError: one optimizer object for both models.
        """
        super().compile(optimizer, *args, **kwargs)
        if teacher_optimizer is None:
            teacher_optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(self.optimizer))
        teacher_optimizer = keras.optimizers.get(teacher_optimizer)
        if teacher_optimizer is optimizer or teacher_optimizer is self.optimizer:
            raise ValueError(
                "`optimizer` and `teacher_optimizer` must be two objects: each keeps the state of one model's weights. "
                f"Received: {type(optimizer).__name__} for both"
            )
        scales = keras.optimizers.LossScaleOptimizer
        if isinstance(self.optimizer, scales) and not isinstance(teacher_optimizer, scales):
            teacher_optimizer = scales(teacher_optimizer, name="teacher_loss_scale")
        self.teacher_optimizer = teacher_optimizer
        self._build_teacher_optimizer()

    @property
    def trainable_variables(self):
        """What `optimizer` trains; the teacher's weights have an optimizer of their own."""
        teacher = {id(variable) for variable in self.teacher.trainable_variables}
        return [variable for variable in super().trainable_variables if id(variable) not in teacher]

    def _build_teacher_optimizer(self):
        optimizer = self.teacher_optimizer
        if optimizer is not None and not optimizer.built and self.teacher.trainable_variables:
            with tf.init_scope():
                optimizer.build(self.teacher.trainable_variables)

    def get_compile_config(self):
        config = super().get_compile_config()
        return config and config | {"teacher_optimizer": keras.saving.serialize_keras_object(self.teacher_optimizer)}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    # One step.

    def _prepare(self, x):
        batch = as_batch(x)
        if self.online and "teacher" in batch:
            raise ValueError(
                "A teacher that trains has no outputs to be kept. Received: batches with an entry 'teacher'. Leave it "
                "out, or freeze the teacher: `teacher.trainable = False`"
            )
        if self.anchor is None and "anchor" in batch:
            raise ValueError(
                "Outputs of an anchor are read where there is one. Received: batches with an entry 'anchor', "
                "anchor=None. Leave it out, or give the anchor: `TriKD(teacher, student, anchor)`"
            )
        return super()._prepare(x)

    def _frozen_readers(self):
        readers = [] if self.online else super()._frozen_readers()
        return readers if self.anchor is None else [*readers, self._read_anchor]

    def _objectives(self):
        learners = super()._objectives()
        if self.online:
            learners[TEACHER_TOTAL] = self.teacher_optimizer, self.teacher.trainable_variables
        return learners

    def _run_teacher(self, batch, training):
        if not self.online:
            return super()._run_teacher(batch, training)
        _, outputs = self._read_teacher(images_of("teacher", batch), training=training)
        return outputs

    def _compute_terms(self, step):
        losses = super()._compute_terms(step)
        return losses | {TEACHER_TOTAL: self._teacher_losses(step)} if self.online else losses

    def _teacher_losses(self, step):
        """`{name: (weight, value)}`; the student is fixed here."""
        teacher, student = step.teacher["logits"], tf.stop_gradient(step.student["logits"])
        losses = {}
        if self._compile_loss is not None and step.y is not None:
            value = self._compile_loss(step.y, teacher, step.sample_weight)
            losses[TEACHER_LOSS] = read_hyperparameter(self, "teacher_loss_weight"), value
        if self.anchor is not None:
            value = self._soft_targets(step.batch["anchor"]["logits"], teacher, step)
            losses[TEACHER_ANCHOR] = read_hyperparameter(self, "anchor_weight"), value
        losses[TEACHER_PEER] = read_hyperparameter(self, "peer_weight"), self._soft_targets(student, teacher, step)
        if self.teacher.losses:
            losses[TEACHER_REGULARIZATION] = 1.0, sum_of(self.teacher.losses)
        if self.student_term_reaches_teacher:
            # The student's own term, under its name: it is the same number, here as a function of the teacher.
            losses[self.term_names[0]] = self._weight_variables[0].tensor(), self._soft_targets(teacher, student, step)
        return losses

    def _soft_targets(self, target, logits, step):
        return self.distillation_losses[0](target, logits, sample_weight=step.sample_weight)

    def _statistics(self, step):
        values = super()._statistics(step)
        if self.anchor is not None:
            anchor = step.batch["anchor"]["logits"]
            values[STUDENT_ANCHOR] = self._soft_targets(anchor, step.student["logits"], step)
            if not self.online:  # an online teacher's is one of its losses
                values[TEACHER_ANCHOR] = self._soft_targets(anchor, step.teacher["logits"], step)
        if self.online:
            values |= teacher_accuracy(step.y, step.teacher["logits"])
        return values

    # Saving.

    SERIALIZED = ("teacher", "student", "anchor")
    PLAIN = (
        "temperature",
        "teacher_loss_weight",
        "anchor_weight",
        "peer_weight",
        "student_loss_weight",
        "distillation_weight",
        "student_term_reaches_teacher",
        "name",
    )


def teacher_accuracy(y, logits):
    """The share of images whose largest logit is the label's, by name; nothing where labels are no classes."""
    labels = class_ids(y)
    if labels is None:
        return {}
    return {TEACHER_ACCURACY: share_of_equal(labels, tf.argmax(logits, -1))}
